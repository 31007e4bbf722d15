/* Read-only HTTP: pages, and readers that are slow. */
#include "server/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define BIG_BYTES (1u << 20)
#define READERS   20

struct rig {
    uv_loop_t loop;
    struct http *http;
    struct http_limits limits;
    struct sockaddr_in address;
};

/* A page of the length that its path says: "/3". */
static void on_page(void *owner, const char *path, struct http_page *page)
{
    size_t bytes = strtoul(path + 1, NULL, 10);

    (void)owner;
    if (bytes == 0)
        return;
    page->body = malloc(bytes);
    assert_non_null(page->body);
    memset(page->body, 'x', bytes);
    page->body_bytes = bytes;
    page->status = 200;
    page->type = "text/plain";
}

static void rig_start(struct rig *rig)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    char text[64], error[200];

    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    assert_int_equal(http_start(&rig->http, &rig->loop, &rig->limits, (struct sockaddr *)&any,
                                on_page, rig, error, sizeof error),
                     0);
    http_address(rig->http, text, sizeof text);
    rig->address = any;
    rig->address.sin_port = htons((uint16_t)strtoul(strrchr(text, ':') + 1, NULL, 10));
}

static void rig_end(struct rig *rig)
{
    http_stop(rig->http);
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
}

static void turn(struct rig *rig)
{
    for (int i = 0; i < 20; i++)
        (void)uv_run(&rig->loop, UV_RUN_NOWAIT);
}

/* A reader with room for little, whose request has been taken. */
static int ask(struct rig *rig, const char *method, unsigned bytes)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), room = 4096;
    char request[100];

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&rig->address, sizeof rig->address), 0);
    (void)snprintf(request, sizeof request,
                   "%s /%u HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", method, bytes);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    turn(rig);
    return fd;
}

/* The answer's status: the first that is read of it. */
static int status_of(int fd)
{
    char text[64] = "";
    int status = 0;

    (void)recv(fd, text, 13, MSG_DONTWAIT);
    (void)sscanf(text, "HTTP/1.1 %d", &status);
    return status;
}

/* Reads to the end; how many bytes there were. */
static size_t drain(struct rig *rig, int fd, unsigned pause_ms)
{
    static char text[65536];
    size_t length = 0;
    ssize_t got;

    do {
        turn(rig);
        got = recv(fd, text, sizeof text, MSG_DONTWAIT);
        length += got > 0 ? (size_t)got : 0;
        (void)usleep(pause_ms * 1000);
    } while (got != 0 && !(got < 0 && errno != EAGAIN));
    return length;
}

static void pages_are_served(void **state)
{
    struct rig rig;
    int fd;

    (void)state;
    http_limits_default(&rig.limits);
    rig_start(&rig);
    fd = ask(&rig, "GET", BIG_BYTES);
    assert_int_equal(status_of(fd), 200);
    assert_true(drain(&rig, fd, 0) > BIG_BYTES);
    (void)close(fd);
    fd = ask(&rig, "HEAD", BIG_BYTES);
    assert_int_equal(status_of(fd), 200);
    assert_true(drain(&rig, fd, 0) < 1000);
    (void)close(fd);
    fd = ask(&rig, "GET", 0);
    assert_int_equal(status_of(fd), 404);
    (void)close(fd);
    fd = ask(&rig, "POST", 3);
    assert_int_equal(status_of(fd), 405);
    (void)close(fd);
    rig_end(&rig);
}

/* Bodies that wait to be read have one budget; small pages are beside it. */
static void slow_readers_have_one_budget(void **state)
{
    int readers[READERS], fd, served = 0;
    struct rig rig;

    (void)state;
    http_limits_default(&rig.limits);
    rig.limits.bodies_bytes = 4 * BIG_BYTES;
    rig_start(&rig);
    for (int i = 0; i < READERS; i++) {
        readers[i] = ask(&rig, "GET", BIG_BYTES);
        if (i < 4)
            assert_int_equal(status_of(readers[i]), 200);
        else
            assert_int_equal(status_of(readers[i]), 503);
    }
    fd = ask(&rig, "GET", 3);
    assert_int_equal(status_of(fd), 200);
    (void)close(fd);
    for (int i = 0; i < READERS; i++)
        (void)close(readers[i]);
    turn(&rig);
    for (int i = 0; i < 4; i++) {
        readers[i] = ask(&rig, "GET", BIG_BYTES);
        served += status_of(readers[i]) == 200;
    }
    assert_int_equal(served, 4);
    for (int i = 0; i < 4; i++)
        (void)close(readers[i]);
    fd = ask(&rig, "GET", 5 * BIG_BYTES); /* one alone may be larger than all together */
    turn(&rig);
    assert_int_equal(status_of(fd), 200);
    (void)close(fd);
    rig_end(&rig);
}

/* Reading a little now and then does not hold a body for ever. */
static void an_answer_has_a_deadline(void **state)
{
    struct rig rig;
    size_t length;
    int fd;

    (void)state;
    http_limits_default(&rig.limits);
    rig.limits.answer_ms = 100;
    rig_start(&rig);
    fd = ask(&rig, "GET", 64 * BIG_BYTES);
    assert_int_equal(status_of(fd), 200);
    length = drain(&rig, fd, 1);
    if (length >= 64 * BIG_BYTES)
        fail_msg("all of it was served to a slow reader");
    (void)close(fd);
    fd = ask(&rig, "GET", 3);
    assert_int_equal(status_of(fd), 200);
    (void)close(fd);
    rig_end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_served),
        cmocka_unit_test(slow_readers_have_one_budget),
        cmocka_unit_test(an_answer_has_a_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
