/* The operator's socket: what lies at its path, lines, answers, who holds a place for nothing. */
#include "server/control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#define PLACES 16 /* clients that are served at a time */

struct rig {
    uv_loop_t loop;
    struct control *control;
    char folder[64], path[80];
    char error[400];
    uint64_t ticket;   /* of the last request */
    unsigned requests; /* so far */
    char target[64];   /* of the last request */
    bool silent;       /* requests are not answered at once */
};

static void on_request(void *owner, uint64_t ticket, const struct control_request *request)
{
    struct rig *rig = owner;

    rig->requests++;
    rig->ticket = ticket;
    (void)snprintf(rig->target, sizeof rig->target, "%s", request->target);
    if (!rig->silent)
        control_answer(rig->control, ticket, true, request->target);
}

static void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    (void)snprintf(rig->folder, sizeof rig->folder, "/tmp/muster-control-XXXXXX");
    assert_non_null(mkdtemp(rig->folder));
    (void)snprintf(rig->path, sizeof rig->path, "%s/c.sock", rig->folder);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
}

static int rig_start(struct rig *rig)
{
    return control_start(&rig->control, &rig->loop, rig->path, on_request, rig, rig->error,
                         sizeof rig->error);
}

static void rig_end(struct rig *rig)
{
    control_stop(rig->control);
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    (void)unlink(rig->path);
    assert_int_equal(rmdir(rig->folder), 0);
}

static void turn(struct rig *rig)
{
    for (int i = 0; i < 20; i++)
        (void)uv_run(&rig->loop, UV_RUN_NOWAIT);
}

static struct sockaddr_un address_of(const struct rig *rig)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, rig->path, strlen(rig->path) + 1);
    return address;
}

/* A client, or -1 when nobody listens. */
static int dial(const struct rig *rig)
{
    struct sockaddr_un address = address_of(rig);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What has come, "" for nothing, "(end)" when it was closed. */
static const char *hear(struct rig *rig, int fd)
{
    static char text[65536];
    ssize_t got;

    turn(rig);
    got = recv(fd, text, sizeof text - 1, 0);
    if (got == 0 || (got < 0 && errno == ECONNRESET))
        return "(end)";
    text[got > 0 ? got : 0] = '\0';
    return text;
}

/* ---- the path ------------------------------------------------------------------------------- */

/* The start is refused, the path is named, and what was there is there still. */
static void assert_left_alone(struct rig *rig, const char *word)
{
    struct stat before, after;

    assert_int_equal(lstat(rig->path, &before), 0);
    assert_true(rig_start(rig) < 0);
    assert_null(rig->control);
    if (strstr(rig->error, rig->path) == NULL || strstr(rig->error, word) == NULL)
        fail_msg("'%s' and '%s' are not said: %s", rig->path, word, rig->error);
    if (lstat(rig->path, &after) != 0)
        fail_msg("%s was removed", rig->path);
    assert_true(before.st_ino == after.st_ino && before.st_mode == after.st_mode);
}

static void a_file_at_its_path_is_left_alone(void **state)
{
    struct rig rig;
    FILE *file;

    (void)state;
    rig_init(&rig);
    file = fopen(rig.path, "w");
    assert_non_null(file);
    (void)fclose(file);
    assert_left_alone(&rig, "no socket");
    assert_int_equal(unlink(rig.path), 0);
    assert_int_equal(symlink("/etc/passwd", rig.path), 0);
    assert_left_alone(&rig, "no socket");
    rig_end(&rig);
}

static void a_socket_somebody_listens_on_is_left_alone(void **state)
{
    struct rig rig;
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), filler;

    (void)state;
    rig_init(&rig);
    address = address_of(&rig);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_left_alone(&rig, "listens");
    while ((filler = dial(&rig)) >= 0)
        ; /* until its queue is full: it still lives, though it does not accept */
    assert_left_alone(&rig, "listens");
    (void)close(fd);
    assert_int_equal(unlink(rig.path), 0);
    rig_end(&rig);
}

static void a_stale_socket_is_replaced(void **state)
{
    struct rig rig;
    struct sockaddr_un address;
    struct stat made;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client;

    (void)state;
    rig_init(&rig);
    address = address_of(&rig);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
    assert_int_equal(rig_start(&rig), 0);
    assert_int_equal(stat(rig.path, &made), 0);
    assert_int_equal(made.st_mode & 0777, 0600);
    client = dial(&rig);
    say(client, "{\"command\":\"x\",\"target\":\"t\"}\n");
    assert_string_equal(hear(&rig, client), "{\"ok\":true,\"text\":\"t\"}\n");
    (void)close(client);
    rig_end(&rig);
}

/* At its end too: the path may have become another's meanwhile. */
static void only_its_own_socket_is_removed(void **state)
{
    struct rig rig;
    struct stat what;
    FILE *file;

    (void)state;
    rig_init(&rig);
    assert_int_equal(rig_start(&rig), 0);
    control_stop(rig.control);
    (void)uv_run(&rig.loop, UV_RUN_DEFAULT);
    assert_int_equal(lstat(rig.path, &what), -1);
    assert_int_equal(rig_start(&rig), 0);
    assert_int_equal(unlink(rig.path), 0);
    file = fopen(rig.path, "w");
    assert_non_null(file);
    (void)fclose(file);
    control_stop(rig.control);
    (void)uv_run(&rig.loop, UV_RUN_DEFAULT);
    assert_int_equal(lstat(rig.path, &what), 0);
    rig.control = NULL;
    rig_end(&rig);
}

static void a_path_that_cannot_be_is_named(void **state)
{
    static const char *const paths[] = {
        "/nowhere/c.sock",
        "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789"};
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (size_t i = 0; i < 2; i++) {
        assert_true(control_start(&rig.control, &rig.loop, paths[i], on_request, &rig, rig.error,
                                  sizeof rig.error) < 0);
        assert_non_null(strstr(rig.error, paths[i]));
    }
    rig_end(&rig);
}

/* ---- lines and answers ---------------------------------------------------------------------- */

static unsigned lines_in(const char *text)
{
    unsigned count = 0;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

/* One is worked on at a time, in order, also when they are more than the line buffer holds. */
static void lines_are_answered_in_turn(void **state)
{
    char line[64], expected[96];
    struct rig rig;
    int client;

    (void)state;
    rig_init(&rig);
    rig.silent = true;
    assert_int_equal(rig_start(&rig), 0);
    client = dial(&rig);
    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(line, sizeof line, "{\"command\":\"x\",\"target\":\"%u\"}\n", i);
        say(client, line);
    }
    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(expected, sizeof expected, "{\"ok\":true,\"text\":\"%u\"}\n", i);
        assert_string_equal(hear(&rig, client), "");
        assert_int_equal(rig.requests, i + 1);
        control_answer(rig.control, rig.ticket, true, rig.target);
        assert_string_equal(hear(&rig, client), expected);
    }
    control_answer(rig.control, rig.ticket, true, "twice");
    assert_string_equal(hear(&rig, client), "");
    (void)close(client);
    rig_end(&rig);
}

static void what_is_no_request_is_told(void **state)
{
    char line[5000];
    struct rig rig;
    int client;

    (void)state;
    rig_init(&rig);
    assert_int_equal(rig_start(&rig), 0);
    client = dial(&rig);
    say(client, "[]\nnonsense\n{}\n");
    assert_int_equal(lines_in(hear(&rig, client)), 3);
    assert_int_equal(rig.requests, 0);
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\0';
    say(client, line);
    assert_non_null(strstr(hear(&rig, client), "longer than 4096"));
    assert_string_equal(hear(&rig, client), "(end)");
    (void)close(client);
    rig_end(&rig);
}

static void judge_after(struct rig *rig, uint64_t ms)
{
    uv_update_time(&rig->loop);
    control_judge(rig->control, (uv_now(&rig->loop) + ms) * 1000);
    turn(rig);
}

/* All places are taken by clients that say nothing, or half a line: in time they make room, and are
 * told why; one that waits for its answer is not hurried. */
static void who_is_silent_makes_room(void **state)
{
    int silent[PLACES], late;
    struct rig rig;

    (void)state;
    rig_init(&rig);
    rig.silent = true;
    assert_int_equal(rig_start(&rig), 0);
    for (int i = 0; i < PLACES; i++)
        silent[i] = dial(&rig);
    say(silent[0], "{\"command\":\"x\",\"target\":\"patient\"}\n");
    say(silent[1], "{\"command\":");
    late = dial(&rig);
    say(late, "{\"command\":\"x\",\"target\":\"late\"}\n");
    turn(&rig);
    judge_after(&rig, CONTROL_IDLE_MS - 1000);
    assert_string_equal(rig.target, "patient");
    judge_after(&rig, CONTROL_IDLE_MS + 1);
    assert_string_equal(rig.target, "late");
    control_answer(rig.control, rig.ticket, true, "served");
    assert_string_equal(hear(&rig, late), "{\"ok\":true,\"text\":\"served\"}\n");
    for (int i = 1; i < PLACES; i++) {
        assert_non_null(strstr(hear(&rig, silent[i]), "in time"));
        assert_string_equal(hear(&rig, silent[i]), "(end)");
        (void)close(silent[i]);
    }
    control_answer(rig.control, 0 | (uint64_t)1 << 32, true, "at last");
    assert_string_equal(hear(&rig, silent[0]), "{\"ok\":true,\"text\":\"at last\"}\n");
    (void)close(silent[0]);
    (void)close(late);
    rig_end(&rig);
}

/* Commands without end whose answers nobody reads: one answer waits, the rest is not read. */
static void who_does_not_read_is_closed(void **state)
{
    static const char line[] = "{\"command\":\"x\",\"target\":\"t\"}\n";
    struct rig rig;
    ssize_t sent;
    int client;

    (void)state;
    rig_init(&rig);
    assert_int_equal(rig_start(&rig), 0);
    client = dial(&rig);
    do {
        sent = send(client, line, sizeof line - 1, MSG_NOSIGNAL);
        turn(&rig);
    } while (sent > 0);
    assert_true(errno == EAGAIN);
    judge_after(&rig, CONTROL_IDLE_MS + 1);
    do
        sent = send(client, line, sizeof line - 1, MSG_NOSIGNAL);
    while (sent > 0);
    assert_true(errno == EPIPE || errno == ECONNRESET);
    (void)close(client);
    rig_end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_at_its_path_is_left_alone),
        cmocka_unit_test(a_socket_somebody_listens_on_is_left_alone),
        cmocka_unit_test(a_stale_socket_is_replaced),
        cmocka_unit_test(only_its_own_socket_is_removed),
        cmocka_unit_test(a_path_that_cannot_be_is_named),
        cmocka_unit_test(lines_are_answered_in_turn),
        cmocka_unit_test(what_is_no_request_is_told),
        cmocka_unit_test(who_is_silent_makes_room),
        cmocka_unit_test(who_does_not_read_is_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
