/* Is anybody listening where a missing member did? Only a refusal is proof; silence and garbage are
 * not. */
#include "server/probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
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

#define MANY   100
#define FILLED 8

struct rig {
    uv_loop_t loop;
    unsigned answers;                /* callbacks so far */
    enum probe_result results[MANY]; /* by tag */
    bool inside;                     /* probe_start() is being called */
};

static void on_probed(void *owner, uint64_t tag, enum probe_result result)
{
    struct rig *rig = owner;

    assert_false(rig->inside);
    assert_true(tag < MANY);
    rig->answers++;
    rig->results[tag] = result;
}

static int start(struct rig *rig, const char *address, uint64_t tag)
{
    int status;

    rig->inside = true;
    status = probe_start(&rig->loop, address, on_probed, rig, tag);
    rig->inside = false;
    return status;
}

/* Until all handles are closed. */
static void run(struct rig *rig)
{
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
}

static void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
}

/* A socket on 127.0.0.1 or [::1], listening when backlog >= 0; its address as text. */
static int listener(int family, int backlog, char address[64])
{
    struct sockaddr_storage where = {.ss_family = (sa_family_t)family};
    struct sockaddr_in *four = (struct sockaddr_in *)&where;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&where;
    socklen_t length = family == AF_INET ? sizeof *four : sizeof *six;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (family == AF_INET)
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        six->sin6_addr = in6addr_loopback;
    if (bind(fd, (struct sockaddr *)&where, length) != 0) {
        (void)close(fd);
        return -1;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&where, &length), 0);
    (void)snprintf(address, 64, family == AF_INET ? "127.0.0.1:%u" : "[::1]:%u",
                   ntohs(family == AF_INET ? four->sin_port : six->sin6_port));
    if (backlog >= 0)
        assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void who_listens_answers_and_who_is_gone_refuses(void **state)
{
    static const int families[] = {AF_INET, AF_INET6};

    (void)state;
    for (int i = 0; i < 2; i++) {
        char alive[64], gone[64];
        struct rig rig;
        int open = listener(families[i], 16, alive), bound = listener(families[i], -1, gone);

        if (open < 0 && families[i] == AF_INET6)
            continue; /* a host without IPv6 */
        rig_init(&rig);
        assert_int_equal(start(&rig, alive, 0), 0);
        assert_int_equal(start(&rig, gone, 1), 0);
        run(&rig);
        assert_int_equal(rig.answers, 2);
        assert_int_equal(rig.results[0], PROBE_ANSWERED);
        assert_int_equal(rig.results[1], PROBE_REFUSED);
        (void)close(open);
        (void)close(bound);
    }
}

/* A stopped process whose queue is full: the kernel drops what comes, and says nothing. */
static void silence_is_no_proof(void **state)
{
    struct sockaddr_in where = {.sin_family = AF_INET};
    char address[64];
    int fd = listener(AF_INET, 0, address), fillers[FILLED];
    struct rig rig;

    (void)state;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    where.sin_port = htons((uint16_t)strtoul(strchr(address, ':') + 1, NULL, 10));
    for (int i = 0; i < FILLED; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(fillers[i] >= 0);
        (void)connect(fillers[i], (struct sockaddr *)&where, sizeof where);
    }
    rig_init(&rig);
    assert_int_equal(start(&rig, address, 0), 0);
    run(&rig);
    assert_int_equal(rig.answers, 1);
    assert_int_equal(rig.results[0], PROBE_UNREACHABLE);
    for (int i = 0; i < FILLED; i++)
        (void)close(fillers[i]);
    (void)close(fd);
}

static void what_is_no_address_is_refused_at_once(void **state)
{
    static const char *const addresses[] = {
        "",
        "127.0.0.1",
        "127.0.0.1:",
        ":80",
        "localhost:80",
        "127.0.0.1:0",
        "1.2.3:80",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "[::1]",
        "[::1:80",
        "[]:80",
        "[:80",
        "127.0.0.1:8x",
        "127.0.0.1: 80",
        "::1:80",
        "127.0.0.1:+80",
        "[0123456789012345678901234567890123456789012345678901234567890123456789]:80"};
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++)
        if (start(&rig, addresses[i], 0) == 0)
            fail_msg("'%s' was taken for an address", addresses[i]);
    run(&rig);
    assert_int_equal(rig.answers, 0);
}

static void many_at_once_are_each_told_once(void **state)
{
    char alive[64], gone[64];
    int open = listener(AF_INET, MANY, alive), bound = listener(AF_INET, -1, gone);
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (uint64_t tag = 0; tag < MANY; tag++)
        assert_int_equal(start(&rig, tag % 2 ? alive : gone, tag), 0);
    run(&rig);
    assert_int_equal(rig.answers, MANY);
    for (uint64_t tag = 0; tag < MANY; tag++)
        assert_int_equal(rig.results[tag], tag % 2 ? PROBE_ANSWERED : PROBE_REFUSED);
    (void)close(open);
    (void)close(bound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_listens_answers_and_who_is_gone_refuses),
        cmocka_unit_test(silence_is_no_proof),
        cmocka_unit_test(what_is_no_address_is_refused_at_once),
        cmocka_unit_test(many_at_once_are_each_told_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
