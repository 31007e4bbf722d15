/* fetch_json() and control_ask() against servers that answer well, badly and not at all. */
#include "cli/command.h"

#include "base/exits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

/* A server for one connection: reads once, answers, closes. */
struct server {
    int listener;
    const char *answer; /* bytes to send */
    char request[4096]; /* what was read */
    pthread_t thread;
};

static void *serve(void *context)
{
    struct server *server = context;
    int peer = accept(server->listener, NULL, NULL);
    ssize_t got = read(peer, server->request, sizeof server->request - 1);

    server->request[got > 0 ? got : 0] = '\0';
    (void)!send(peer, server->answer, strlen(server->answer), MSG_NOSIGNAL);
    (void)close(peer);
    return NULL;
}

static void serve_start(struct server *server, int listener, const char *answer)
{
    server->listener = listener;
    server->answer = answer;
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void serve_end(struct server *server)
{
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    (void)close(server->listener);
}

static int tcp_listener(char *address, size_t bytes)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &length), 0);
    (void)snprintf(address, bytes, "127.0.0.1:%u", ntohs(at.sin_port));
    return listener;
}

static int fetch_from(const char *answer, json_t **object, struct error *error, char *request)
{
    struct server server;
    char address[64];
    int result;

    serve_start(&server, tcp_listener(address, sizeof address), answer);
    result = fetch_json(address, "/v1/status", object, error);
    serve_end(&server);
    memcpy(request, server.request, 64);
    request[64] = '\0';
    return result;
}

static void fetches_an_object(void **state)
{
    json_t *object = NULL;
    struct error error;
    char request[65];

    (void)state;
    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1", 1), 0); /* not to be used */
    assert_int_equal(fetch_from("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"jobs\":[]}",
                                &object, &error, request),
                     0);
    assert_int_equal(strncmp(request, "GET /v1/status HTTP/1.1\r\n", 25), 0);
    assert_true(json_is_array(json_object_get(object, "jobs")));
    json_decref(object);
}

static void bad_answers_are_unavailable(void **state)
{
    static const char *const answers[] = {
        "", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"a\":1,\"a\":1}   "};

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        json_t *object = NULL;
        struct error error = {.code = 0};
        char request[65];

        assert_int_equal(fetch_from(answers[i], &object, &error, request), EXIT_UNAVAILABLE);
        assert_null(object);
        assert_non_null(strstr(error.text, "127.0.0.1:"));
    }
}

static void nobody_listens(void **state)
{
    char address[64];
    json_t *object = NULL;
    struct error error = {.code = 0};
    char *text = NULL;

    (void)state;
    (void)close(tcp_listener(address, sizeof address));
    assert_int_equal(fetch_json(address, "/v1/status", &object, &error), EXIT_UNAVAILABLE);
    assert_non_null(strstr(error.text, address));
    assert_non_null(strstr(error.text, "MUSTER_HTTP"));
    assert_int_equal(control_ask("/nowhere", NULL, "why", NULL, NULL, &text, &error),
                     EXIT_UNAVAILABLE);
    assert_non_null(strstr(error.text, "/nowhere/control.sock"));
    assert_null(text);
}

static int ask(const char *answer, const char *job, const char *target, char **text,
               struct error *error, char *request)
{
    char folder[] = "/tmp/muster-cli-XXXXXX";
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct server server;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    int result;

    assert_non_null(mkdtemp(folder));
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s/control.sock", folder);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    serve_start(&server, listener, answer);
    result = control_ask(folder, NULL, "drain", job, target, text, error);
    serve_end(&server);
    (void)unlink(at.sun_path);
    (void)rmdir(folder);
    memcpy(request, server.request, sizeof server.request);
    return result;
}

static void asks_over_the_control_socket(void **state)
{
    char request[4096];
    char *text = NULL;
    struct error error = {.code = 0};
    json_t *object;

    (void)state;
    assert_int_equal(ask("{\"ok\":true,\"text\":\"node-b: 2 members drain\"}\n", "mnist",
                         "node \"b\"", &text, &error, request),
                     0);
    assert_string_equal(text, "node-b: 2 members drain");
    free(text);
    object = json_loads(request, 0, NULL);
    assert_int_equal(request[strlen(request) - 1], '\n');
    assert_string_equal(json_string_value(json_object_get(object, "command")), "drain");
    assert_string_equal(json_string_value(json_object_get(object, "target")), "node \"b\"");
    assert_string_equal(json_string_value(json_object_get(object, "job")), "mnist");
    json_decref(object);
    assert_int_equal(
        ask("{\"ok\":false,\"text\":\"no member 'x'\"}\n", NULL, "x", &text, &error, request),
        EXIT_REFUSED);
    assert_string_equal(error.text, "no member 'x'");
}

static void strange_answers_are_unavailable(void **state)
{
    static const char *const answers[] = {"",     "hello\n",     "{}\n", "{\"ok\":1}\n",
                                          "[]\n", "{\"ok\":true"};

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        char request[4096];
        char *text = NULL;
        struct error error = {.code = 0};

        assert_int_equal(ask(answers[i], NULL, "x", &text, &error, request), EXIT_UNAVAILABLE);
        assert_null(text);
    }
}

static void words_that_are_not_text_are_usage(void **state)
{
    char *text = NULL;
    struct error error = {.code = 0};
    char path[300];

    (void)state;
    assert_int_equal(control_ask("/tmp", NULL, "drain", NULL, "\xff", &text, &error), EXIT_USAGE);
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_int_equal(control_ask(NULL, path, "why", NULL, NULL, &text, &error), EXIT_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fetches_an_object),
        cmocka_unit_test(bad_answers_are_unavailable),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(asks_over_the_control_socket),
        cmocka_unit_test(strange_answers_are_unavailable),
        cmocka_unit_test(words_that_are_not_text_are_usage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
