/* comm/tcp before those who do not keep the rules: strangers, half messages, floods, members gone
 * mad. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/tcp/address.h"
#include "comm/tcp/proof.h"
#include "comm/tcp/tcp.h"
#include "comm/tcp/wire.h"
#include "fixture.h"

static const uint32_t two[] = {0, 1};
static const uint32_t alone[] = {0};

static struct fixture *open_tcp(uint32_t count, const struct comm_limits *limits)
{
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_open(fixture, CARRIER_TCP4, count, limits);
    return fixture;
}

static void close_tcp(struct fixture *fixture)
{
    fixture_close(fixture);
    free(fixture);
}

static struct comm_limits short_limits(void)
{
    struct comm_limits limits;
    comm_limits_default(&limits);
    limits.handshake_ms = 1000;
    limits.connect_ms = 1300;
    limits.progress_ms = 1000;
    return limits;
}

static uint64_t strangers_of(struct fixture *fixture, uint32_t end)
{
    struct comm_counters counters;
    comm_counters(fixture->ends[end].comm, &counters);
    return counters.strangers;
}

/* ---- a client that says what the test wants -------------------------------------------------- */

static int raw_connect(const char *address)
{
    struct address_parts parts;
    struct sockaddr_storage at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_true(address_split(address, &parts));
    assert_true(address_numeric(&parts, &at));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, address_bytes(&at)), 0);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* A listener at the address, and a connection to it; is that inside this host? */
static bool connects_inside(const char *at)
{
    struct address_parts parts;
    struct sockaddr_storage address;
    assert_true(address_split(at, &parts));
    assert_true(address_numeric(&parts, &address));
    socklen_t bytes = address_bytes(&address);
    int listener = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, bytes), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    assert_false(address_same_host(fd)); /* it is not connected */
    assert_int_equal(connect(fd, (struct sockaddr *)&address, bytes), 0);
    bool inside = address_same_host(fd);
    close(fd);
    close(listener);
    return inside;
}

static void a_connection_inside_a_host_is_known(void **state)
{
    int pair[2];
    (void)state;
    assert_true(connects_inside("127.0.0.1:0"));
    assert_true(connects_inside("127.0.0.7:0"));
    assert_true(connects_inside("[::1]:0"));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_false(address_same_host(pair[0])); /* it has no such addresses, and a size of its own */
    close(pair[0]);
    close(pair[1]);
}

/* Connections of this process to itself whose send buffer has that size. */
static uint32_t inside_with_buffer(int bytes)
{
    uint32_t count = 0;
    for (int fd = 3; fd < 256; fd++) {
        int has = 0;
        socklen_t has_bytes = sizeof has;
        count += address_same_host(fd) &&
                 getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &has, &has_bytes) == 0 && has == bytes;
    }
    return count;
}

static void raw_write(int fd, const void *data, size_t bytes)
{
    assert_int_equal(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

/* Reads so many bytes while the ends go on; false: the connection ended before. */
static bool raw_read(struct fixture *fixture, int fd, void *data, size_t bytes)
{
    size_t got = 0;
    for (unsigned turns = 0; got < bytes; turns++) {
        ssize_t n = recv(fd, (uint8_t *)data + got, bytes - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return false;
        }
        got += n > 0 ? (size_t)n : 0;
        fixture_spin(fixture, 1);
        assert_true(turns < 6000);
    }
    return true;
}

static void raw_wait_end(struct fixture *fixture, int fd)
{
    uint8_t bytes[4096];
    ssize_t n = 1;
    for (unsigned turns = 0; n > 0 || (n < 0 && errno == EAGAIN); turns++) {
        fixture_spin(fixture, 1);
        n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        assert_true(turns < 6000);
    }
    close(fd);
}

/* A member that was proven and has entered generation 1 of end 0 as a visitor; then it does as it
 * likes. */
static int raw_member(struct fixture *fixture, struct proof_session *session,
                      uint8_t key[COMM_KEY_BYTES])
{
    struct comm_member members[ENDS_MAX];
    struct comm_generation generation = fixture_generation(fixture, 0, 1, alone, 1, members);
    struct wire_hello hello = {.number = 1, .nonce = generation.nonce, .from = "a raw visitor!"};
    struct wire_answer_message answer;
    uint8_t bytes[WIRE_ENTER_BYTES];
    uint8_t proof[WIRE_PROOF_BYTES];
    uint32_t before = fixture->ends[0].announced;
    int fd = raw_connect(fixture->ends[0].address);
    memcpy(key, generation.key, COMM_KEY_BYTES);
    memcpy(hello.to, fixture->ends[0].id, COMM_ID_BYTES);
    assert_true(proof_challenge(hello.challenge));
    wire_put_hello(bytes, &hello);
    raw_write(fd, bytes, WIRE_HELLO_BYTES);
    assert_true(raw_read(fixture, fd, bytes, WIRE_ANSWER_BYTES));
    assert_true(wire_get_answer(bytes, &answer));
    assert_int_equal(answer.code, WIRE_ANSWER_OK);
    memcpy(session->dialer, hello.from, COMM_ID_BYTES);
    memcpy(session->acceptor, hello.to, COMM_ID_BYTES);
    memcpy(session->dialer_challenge, hello.challenge, WIRE_CHALLENGE_BYTES);
    memcpy(session->acceptor_challenge, answer.challenge, WIRE_CHALLENGE_BYTES);
    assert_true(proof_check(key, PROOF_ACCEPTOR, 1, generation.nonce, session, answer.proof));
    assert_true(proof_make(key, PROOF_DIALER, 1, generation.nonce, session, proof));
    wire_put_proof(bytes, proof);
    raw_write(fd, bytes, WIRE_PROOF_MESSAGE_BYTES);
    struct comm_frame enter = {.kind = WIRE_KIND_ENTER,
                               .number = 1,
                               .nonce = generation.nonce,
                               .length = WIRE_PROOF_BYTES};
    wire_put_header(bytes, &enter);
    assert_true(proof_make(key, PROOF_ENTER_DIALER, 1, generation.nonce, session,
                           bytes + WIRE_HEADER_BYTES));
    raw_write(fd, bytes, WIRE_ENTER_BYTES);
    fixture_wait(fixture, &fixture->ends[0].announced, before + 1);
    return fd;
}

static struct comm_frame raw_frame(uint32_t kind, uint64_t length)
{
    uint64_t nonce = 0;
    struct comm_member members[ENDS_MAX];
    struct fixture *any = calloc(1, sizeof *any);
    nonce = fixture_generation(any, 0, 1, alone, 1, members).nonce;
    free(any);
    return (struct comm_frame){.kind = kind, .number = 1, .nonce = nonce, .length = length};
}

static void raw_header(int fd, const struct comm_frame *frame)
{
    uint8_t bytes[WIRE_HEADER_BYTES];
    wire_put_header(bytes, frame);
    raw_write(fd, bytes, sizeof bytes);
}

/* ---- strangers ------------------------------------------------------------------------------- */

static void strangers_are_refused(void **state)
{
    static const char *const sayings[] = {
        "GET / HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02",
        "MuHL....................................................................................",
    };
    struct fixture *fixture = open_tcp(2, NULL);
    (void)state;
    fixture_enter_all(fixture, 1, two, 2);
    for (unsigned i = 0; i < 3; i++) {
        int fd = raw_connect(fixture->ends[0].address);
        raw_write(fd, sayings[i], strlen(sayings[i]));
        raw_wait_end(fixture, fd);
        assert_int_equal(strangers_of(fixture, 0), i + 1);
    }
    assert_true(fixture->ends[0].logs > 0);
    assert_non_null(strstr(fixture->ends[0].log_text, "does not speak our protocol"));
    assert_int_equal(fixture->ends[0].lost, 0);
    fixture_send(fixture, 0, 1, COMM_WORD, 1, NULL, 0, NULL);
    fixture_wait(fixture, &fixture->ends[1].arrival_count, 1);
    close_tcp(fixture);
}

/* It says everything else as a member would: only its version is not ours. */
static void another_version_is_refused(void **state)
{
    struct fixture *fixture = open_tcp(1, NULL);
    struct comm_member members[ENDS_MAX];
    struct wire_hello hello = {.number = 1, .from = "from a later age"}, got;
    struct wire_answer_message answer;
    uint8_t bytes[WIRE_HELLO_BYTES], answered[WIRE_ANSWER_BYTES];
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    hello.nonce = fixture_generation(fixture, 0, 1, alone, 1, members).nonce;
    memcpy(hello.to, fixture->ends[0].id, COMM_ID_BYTES);
    for (unsigned version = WIRE_VERSION - 1; version <= WIRE_VERSION + 1; version++) {
        int fd = raw_connect(fixture->ends[0].address);
        wire_put_hello(bytes, &hello);
        assert_int_equal(bytes[4], WIRE_VERSION);
        bytes[4] = (uint8_t)version;
        assert_int_equal(wire_get_hello(bytes, &got), version == WIRE_VERSION);
        raw_write(fd, bytes, sizeof bytes);
        if (version == WIRE_VERSION) {
            assert_true(raw_read(fixture, fd, answered, sizeof answered));
            assert_true(wire_get_answer(answered, &answer));
            assert_int_equal(answer.code, WIRE_ANSWER_OK);
            close(fd);
        } else {
            assert_false(raw_read(fixture, fd, answered, 1)); /* shown out without a word */
            close(fd);
            assert_non_null(strstr(fixture->ends[0].log_text, "does not speak our protocol"));
        }
    }
    assert_in_range(strangers_of(fixture, 0), 2, 3);
    assert_int_equal(fixture->ends[0].announced, 0);
    close_tcp(fixture);
}

/* A stranger that knows all but the key, and one that replays what it has seen. */
static void who_does_not_know_the_key_is_refused(void **state)
{
    struct fixture *fixture = open_tcp(1, NULL);
    struct comm_member members[ENDS_MAX];
    struct wire_hello hello = {.number = 1, .from = "a raw stranger"};
    struct wire_answer_message answer;
    uint8_t bytes[WIRE_ENTER_BYTES];
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    hello.nonce = fixture_generation(fixture, 0, 1, alone, 1, members).nonce;
    memcpy(hello.to, fixture->ends[0].id, COMM_ID_BYTES);
    int fd = raw_connect(fixture->ends[0].address);
    wire_put_hello(bytes, &hello);
    raw_write(fd, bytes, WIRE_HELLO_BYTES);
    assert_true(raw_read(fixture, fd, bytes, WIRE_ANSWER_BYTES));
    assert_true(wire_get_answer(bytes, &answer));
    wire_put_proof(bytes, answer.proof); /* the acceptor's own proof is none for the dialer */
    raw_write(fd, bytes, WIRE_PROOF_MESSAGE_BYTES);
    raw_wait_end(fixture, fd);
    assert_int_equal(strangers_of(fixture, 0), 1);
    assert_int_equal(fixture->ends[0].announced, 0);
    hello.nonce ^= 1;
    fd = raw_connect(fixture->ends[0].address);
    wire_put_hello(bytes, &hello);
    raw_write(fd, bytes, WIRE_HELLO_BYTES);
    assert_true(raw_read(fixture, fd, bytes, WIRE_ANSWER_BYTES));
    assert_true(wire_get_answer(bytes, &answer));
    assert_int_equal(answer.code, WIRE_ANSWER_UNKNOWN);
    raw_wait_end(fixture, fd);
    close_tcp(fixture);
}

static void half_a_hello_has_a_deadline(void **state)
{
    struct comm_limits limits = short_limits();
    struct fixture *fixture = open_tcp(1, &limits);
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    int silent = raw_connect(fixture->ends[0].address);
    int half = raw_connect(fixture->ends[0].address);
    raw_write(half, "MuHL\x01", 5);
    raw_wait_end(fixture, silent);
    raw_wait_end(fixture, half);
    assert_int_equal(strangers_of(fixture, 0), 2);
    close_tcp(fixture);
}

/* One that speaks of a generation to come waits, no longer than the deadline, and reads nothing
 * more. */
static void a_hello_from_the_future_has_a_deadline(void **state)
{
    struct comm_limits limits = short_limits();
    struct fixture *fixture = open_tcp(1, &limits);
    struct wire_hello hello = {.number = 77, .from = "from the future"};
    uint8_t bytes[WIRE_HELLO_BYTES + 20000] = {0};
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    memcpy(hello.to, fixture->ends[0].id, COMM_ID_BYTES);
    wire_put_hello(bytes, &hello);
    int fd = raw_connect(fixture->ends[0].address);
    raw_write(fd, bytes, sizeof bytes);
    raw_wait_end(fixture, fd);
    assert_int_equal(strangers_of(fixture, 0), 1);
    close_tcp(fixture);
}

static void a_flood_disturbs_nobody(void **state)
{
    enum { FLOOD = 400 };
    static int fds[FLOOD];
    struct comm_limits limits;
    (void)state;
    comm_limits_default(&limits);
    limits.unproven_count = 16;
    struct fixture *fixture = open_tcp(2, &limits);
    assert_int_equal(fixture_enter(fixture, 0, 1, two, 2), COMM_OK);
    for (unsigned i = 0; i < FLOOD; i++) {
        fds[i] = raw_connect(fixture->ends[i % 2].address);
        if (i % 50 == 49) {
            fixture_spin(fixture, 1);
        }
    }
    assert_int_equal(fixture_enter(fixture, 1, 1, two, 2), COMM_OK);
    fixture_wait_ready(fixture, 0, 1);
    fixture_wait_ready(fixture, 1, 1);
    fixture_spin(fixture, 5);
    unsigned open_count = 0;
    for (unsigned i = 0; i < FLOOD; i++) {
        uint8_t byte = 0;
        open_count += recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
        close(fds[i]);
    }
    assert_in_range(open_count, 1, 2 * limits.unproven_count);
    close_tcp(fixture);
}

/* ---- members that cannot be reached ---------------------------------------------------------- */

static void enter_with_address(struct fixture *fixture, const char *address)
{
    struct comm_member members[ENDS_MAX];
    struct comm_generation generation = fixture_generation(fixture, 0, 1, two, 2, members);
    memset(fixture->ends[0].id, 0, COMM_ID_BYTES);
    snprintf(members[1].address, sizeof members[1].address, "%s", address);
    assert_int_equal(comm_enter(fixture->ends[0].comm, &generation), COMM_OK);
}

/* End 0 with an id smaller than any other: it is the one that dials. */
static struct fixture *open_dialer(const struct comm_limits *limits)
{
    struct fixture *fixture = open_tcp(2, limits);
    while (memcmp(fixture->ends[0].id, fixture->ends[1].id, COMM_ID_BYTES) > 0) {
        fixture_close(fixture);
        fixture_open(fixture, CARRIER_TCP4, 2, limits);
    }
    return fixture;
}

static void an_unreachable_address_is_named(void **state)
{
    static const char *const addresses[] = {"127.0.0.1:1", "[::1]:1", "nonsense",
                                            "no-such-host.invalid:7", ":7"};
    struct comm_limits limits = short_limits();
    (void)state;
    for (unsigned i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        struct fixture *fixture = open_dialer(&limits);
        enter_with_address(fixture, addresses[i]);
        fixture_wait(fixture, &fixture->ends[0].lost, 1);
        assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_UNREACHABLE);
        assert_non_null(strstr(fixture->ends[0].lost_text, "rank 1 at "));
        assert_non_null(strstr(fixture->ends[0].lost_text, addresses[i]));
        assert_non_null(strstr(fixture->ends[0].lost_text, "--data-listen"));
        close_tcp(fixture);
    }
}

static void a_host_name_is_looked_up(void **state)
{
    struct fixture *fixture = open_dialer(NULL);
    char address[COMM_ADDRESS_BYTES];
    (void)state;
    snprintf(address, sizeof address, "localhost:%s", strchr(fixture->ends[1].address, ':') + 1);
    assert_int_equal(fixture_enter(fixture, 1, 1, two, 2), COMM_OK);
    enter_with_address(fixture, address);
    fixture_wait_ready(fixture, 0, 1);
    close_tcp(fixture);
}

/* Somebody else listens there: it says nothing, or the wrong thing. */
static void somebody_else_at_the_address_is_no_member(void **state)
{
    struct comm_limits limits = short_limits();
    (void)state;
    for (unsigned talks = 0; talks < 2; talks++) {
        struct fixture *fixture = open_dialer(&limits);
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t bytes = sizeof at;
        struct sockaddr_storage bound;
        char address[COMM_ADDRESS_BYTES];
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&at, bytes), 0);
        assert_int_equal(listen(listener, 16), 0);
        memset(&bound, 0, sizeof bound);
        bytes = sizeof bound;
        getsockname(listener, (struct sockaddr *)&bound, &bytes);
        address_text(&bound, address, sizeof address);
        enter_with_address(fixture, address);
        int fds[64];
        unsigned count = 0;
        while (fixture->ends[0].lost == 0) {
            fixture_spin(fixture, 1);
            int fd = accept(listener, NULL, NULL);
            if (fd >= 0) {
                assert_true(count < 64);
                fds[count++] = fd;
                char text[WIRE_ANSWER_BYTES] = "220 mail.example.org ESMTP\r\n";
                if (talks) {
                    send(fd, text, sizeof text, MSG_NOSIGNAL);
                }
            }
        }
        assert_int_equal(fixture->ends[0].lost_why,
                         talks ? COMM_LOST_STRANGER : COMM_LOST_UNREACHABLE);
        while (count > 0) {
            close(fds[--count]);
        }
        close(listener);
        close_tcp(fixture);
    }
}

static void the_wrong_key_is_no_member(void **state)
{
    struct comm_limits limits = short_limits();
    struct fixture *fixture = open_dialer(&limits);
    struct comm_member members[ENDS_MAX];
    struct comm_generation generation = fixture_generation(fixture, 0, 1, two, 2, members);
    (void)state;
    generation.key[3] ^= 8;
    assert_int_equal(comm_enter(fixture->ends[0].comm, &generation), COMM_OK);
    assert_int_equal(fixture_enter(fixture, 1, 1, two, 2), COMM_OK);
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    fixture_wait(fixture, &fixture->ends[1].lost, 1);
    assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_STRANGER);
    assert_int_equal(fixture->ends[1].lost_why, COMM_LOST_UNREACHABLE);
    assert_true(strangers_of(fixture, 1) > 0);
    close_tcp(fixture);
}

/* Both the one who dialed and the one who accepted; the kernel doubles what it is asked for. */
static void inside_a_host_buffers_are_small(void **state)
{
    struct fixture *fixture = open_tcp(2, NULL);
    (void)state;
    fixture_enter_all(fixture, 1, two, 2);
    assert_int_equal(inside_with_buffer(2 * 256 * 1024), 2);
    close_tcp(fixture);
}

static void a_taken_port_is_said(void **state)
{
    struct fixture *fixture = open_tcp(1, NULL);
    struct comm_events none;
    struct comm *comm = NULL;
    char error[256] = "";
    const uint8_t id[COMM_ID_BYTES] = "another one";
    (void)state;
    memset(&none, 0, sizeof none);
    assert_int_equal(comm_tcp_open(&fixture->loop, fixture->ends[0].address, id, &none, NULL, NULL,
                                   &comm, error, sizeof error),
                     COMM_ADDRESS);
    assert_null(comm);
    assert_non_null(strstr(error, fixture->ends[0].address));
    assert_non_null(strstr(error, strerror(EADDRINUSE)));
    static const char *const wrong[] = {"", "1.2.3.4", "1.2.3.4:", "1.2.3.4:99999", "1.2.3.4:-1",
                                        "::1:80", "1.2.3.4:8x", "no-such-host.invalid:0"};
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(comm_tcp_open(&fixture->loop, wrong[i], id, &none, NULL, NULL, &comm,
                                       error, sizeof error),
                         COMM_ADDRESS);
        assert_non_null(strstr(error, wrong[i]));
    }
    assert_int_equal(comm_tcp_open(&fixture->loop, "0.0.0.0:0", id, &none, NULL, NULL, &comm, error,
                                   sizeof error),
                     COMM_OK);
    comm_address(comm, error, sizeof error);
    assert_int_equal(error[0], ':');
    comm_close(comm);
    close_tcp(fixture);
}

/* ---- members gone mad ------------------------------------------------------------------------ */

static void what_no_member_sends_ends_the_connection(void **state)
{
    struct comm_limits limits = short_limits();
    limits.frame_bytes = 100000;
    struct fixture *fixture = open_tcp(1, &limits);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    static const uint8_t junk[WIRE_HEADER_BYTES] = "junk";
    const struct comm_frame frames[] = {
        raw_frame(COMM_PIECE, 100001),          raw_frame(COMM_PIECE, UINT64_MAX),
        raw_frame(COMM_WORD, 1),                raw_frame(COMM_REQUEST, 4097),
        raw_frame(COMM_KIND_COUNT, 0),          raw_frame(WIRE_KIND_ENTER, 31),
        raw_frame(WIRE_KIND_ENTER, UINT64_MAX), raw_frame(UINT32_MAX, 0),
    };
    enum { FRAMES = sizeof frames / sizeof frames[0] };
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    for (uint32_t i = 0; i < FRAMES + 2; i++) {
        int fd = raw_member(fixture, &session, key);
        if (i < FRAMES) {
            raw_header(fd, &frames[i]);
        } else if (i == FRAMES) {
            raw_write(fd, junk, sizeof junk);
        } else {
            struct comm_frame frame = raw_frame(COMM_PIECE, 4);
            raw_header(fd, &frame);
            raw_write(fd, "1234no trailer", 14);
        }
        fixture_wait(fixture, &fixture->ends[0].lost, i + 1);
        assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_PROTOCOL);
        raw_wait_end(fixture, fd);
        assert_int_equal(fixture->ends[0].places, 0);
    }
    assert_int_equal(fixture->ends[0].arrival_count, 0);
    close_tcp(fixture);
}

static void half_a_frame_has_a_deadline(void **state)
{
    struct comm_limits limits = short_limits();
    struct fixture *fixture = open_tcp(1, &limits);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    static const uint8_t zeros[5000];
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    for (uint32_t cut = 0; cut < 3; cut++) {
        struct comm_frame frame = raw_frame(COMM_PIECE, 10000);
        uint8_t bytes[WIRE_HEADER_BYTES];
        int fd = raw_member(fixture, &session, key);
        wire_put_header(bytes, &frame);
        raw_write(fd, bytes, cut == 0 ? 40 : sizeof bytes);
        if (cut == 2) {
            raw_write(fd, zeros, sizeof zeros);
        }
        fixture_wait(fixture, &fixture->ends[0].lost, cut + 1);
        assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_UNREACHABLE);
        assert_non_null(strstr(fixture->ends[0].lost_text, "half a frame"));
        raw_wait_end(fixture, fd);
        assert_int_equal(fixture->ends[0].places, 0);
    }
    close_tcp(fixture);
}

static void half_a_frame_and_gone(void **state)
{
    struct fixture *fixture = open_tcp(1, NULL);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    static const uint8_t zeros[5000];
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    struct comm_frame frame = raw_frame(COMM_PIECE, 10000);
    int fd = raw_member(fixture, &session, key);
    raw_header(fd, &frame);
    raw_write(fd, zeros, sizeof zeros);
    close(fd);
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_CLOSED);
    assert_int_equal(fixture->ends[0].dropped, 1);
    assert_int_equal(fixture->ends[0].places, 0);
    close_tcp(fixture);
}

static void one_byte_at_a_time_is_fine(void **state)
{
    struct comm_limits limits = short_limits();
    struct fixture *fixture = open_tcp(1, &limits);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    uint8_t bytes[WIRE_HEADER_BYTES + 20 + WIRE_TRAILER_BYTES];
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    int fd = raw_member(fixture, &session, key);
    struct comm_frame frame = raw_frame(COMM_RESULT, 20);
    frame.value[0] = 5;
    wire_put_header(bytes, &frame);
    pattern_fill(bytes + WIRE_HEADER_BYTES, 20, 5);
    wire_put_trailer(bytes + WIRE_HEADER_BYTES + 20, false);
    for (size_t i = 0; i < sizeof bytes; i++) {
        raw_write(fd, bytes + i, 1);
        fixture_spin(fixture, 1);
    }
    fixture_wait(fixture, &fixture->ends[0].arrival_count, 1);
    assert_true(fixture->ends[0].arrivals[0].intact);
    assert_int_equal(fixture->ends[0].lost, 0);
    close(fd);
    close_tcp(fixture);
}

static void who_reads_nothing_has_a_deadline(void **state)
{
    struct comm_limits limits = short_limits();
    struct fixture *fixture = open_tcp(1, &limits);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    const size_t bytes = (size_t)48 << 20;
    void *data = calloc(1, bytes);
    uint32_t tags = 0;
    struct comm_part part = {data, bytes};
    struct comm_frame frame = {.kind = COMM_STATE};
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    int fd = raw_member(fixture, &session, key);
    assert_int_equal(
        comm_send(fixture->ends[0].comm, fixture->ends[0].last_peer, &frame, &part, 1, &tags),
        COMM_OK);
    fixture_wait(fixture, &tags, 1);
    assert_int_equal(fixture->ends[0].sent[COMM_GONE], 1);
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    assert_int_equal(fixture->ends[0].lost_why, COMM_LOST_UNREACHABLE);
    assert_non_null(strstr(fixture->ends[0].lost_text, "took no byte"));
    close(fd);
    free(data);
    close_tcp(fixture);
}

static void spin(struct fixture *fixture, unsigned ms)
{
    for (unsigned i = 0; i < ms / 5; i++) {
        uv_run(&fixture->loop, UV_RUN_NOWAIT);
        usleep(5000);
    }
}

/* A process that was stopped itself, right after it had written something, gives its peers their
 * time again: a stamp made after the last tick is not moved beyond now. */
static void who_stood_still_accuses_nobody(void **state)
{
    struct fixture *fixture = open_tcp(1, NULL);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    const size_t bytes = (size_t)48 << 20;
    void *data = calloc(1, bytes);
    struct comm_part part = {data, bytes};
    struct comm_frame frame = {.kind = COMM_STATE};
    uint32_t tags = 0;
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    int fd = raw_member(fixture, &session, key);
    spin(fixture, 100); /* away from the last tick */
    assert_int_equal(
        comm_send(fixture->ends[0].comm, fixture->ends[0].last_peer, &frame, &part, 1, &tags),
        COMM_OK);
    spin(fixture, 20);
    usleep(1300 * 1000);
    spin(fixture, 500);
    if (fixture->ends[0].lost != 0) {
        fail_msg("the peer was lost: %s", fixture->ends[0].lost_text);
    }
    close_tcp(fixture);
    close(fd);
    free(data);
}

/* What lies in the socket of one who has died is still read: its last word may be what all wait
 * for. */
static void the_last_words_of_the_dead_are_heard(void **state)
{
    struct fixture *fixture = open_tcp(1, NULL);
    struct proof_session session;
    uint8_t key[COMM_KEY_BYTES];
    (void)state;
    fixture_enter_all(fixture, 1, alone, 1);
    int fd = raw_member(fixture, &session, key);
    for (unsigned i = 0; i < 50; i++) {
        struct comm_frame frame = raw_frame(COMM_WORD, 0);
        raw_header(fd, &frame);
    }
    struct linger at_once = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    shutdown(fd, SHUT_WR);
    fixture_send(fixture, 0, 0, COMM_WORD, 1, NULL, 0, NULL);
    fixture_wait(fixture, &fixture->ends[0].lost, 1);
    assert_int_equal(fixture->ends[0].arrival_count, 50);
    close(fd);
    close_tcp(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_inside_a_host_is_known),
        cmocka_unit_test(inside_a_host_buffers_are_small),
        cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(another_version_is_refused),
        cmocka_unit_test(who_does_not_know_the_key_is_refused),
        cmocka_unit_test(half_a_hello_has_a_deadline),
        cmocka_unit_test(a_hello_from_the_future_has_a_deadline),
        cmocka_unit_test(a_flood_disturbs_nobody),
        cmocka_unit_test(an_unreachable_address_is_named),
        cmocka_unit_test(a_host_name_is_looked_up),
        cmocka_unit_test(somebody_else_at_the_address_is_no_member),
        cmocka_unit_test(the_wrong_key_is_no_member),
        cmocka_unit_test(a_taken_port_is_said),
        cmocka_unit_test(what_no_member_sends_ends_the_connection),
        cmocka_unit_test(half_a_frame_has_a_deadline),
        cmocka_unit_test(half_a_frame_and_gone),
        cmocka_unit_test(one_byte_at_a_time_is_fine),
        cmocka_unit_test(who_reads_nothing_has_a_deadline),
        cmocka_unit_test(who_stood_still_accuses_nobody),
        cmocka_unit_test(the_last_words_of_the_dead_are_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
