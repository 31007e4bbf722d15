/* comm/tcp between real processes that are killed, replaced and stopped. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/tcp/tcp.h"
#include "fixture.h"

enum { PROCESSES = 4, FRAME_BYTES = 1700000 };

/* What the processes share: the test is their coordinator. */
struct board {
    char address[PROCESSES][COMM_ADDRESS_BYTES];
    uint8_t id[PROCESSES][COMM_ID_BYTES];
    atomic_uint open;
    atomic_ullong plan;                /* generation that all members are to enter << PROCESSES |
                                          bit i: process i is a member of it */
    atomic_ullong halted;              /* generation that is over */
    atomic_ullong ready[PROCESSES];    /* generation in which it is ready */
    atomic_ullong whole[PROCESSES];    /* frames that arrived */
    atomic_ullong lost[PROCESSES];     /* lost_cb so far */
    atomic_uint garbled;               /* frames that were not what their sender had */
};

static struct board *board;

struct process {
    uint32_t me;
    struct fixture fixture;            /* one end, index 0 */
    uint8_t *data;
    uint32_t busy;                     /* frames under way */
    uint32_t turn;                     /* whom the next frame is for: all get their share */
    uint64_t number;
    uint64_t halted;
    uint64_t seed;                     /* of data: it changes after a halt only, when nobody reads
                                          it */
};

static void process_frame(struct test_end *end, uint32_t peer, const struct comm_frame *frame)
{
    uint32_t me = (uint32_t)frame->value[1];
    (void)peer;
    const struct arrival *arrival = &end->arrivals[end->arrival_count - 1];
    if (!arrival->intact) {
        atomic_fetch_add(&board->garbled, 1);
    }
    end->arrival_count = 0;
    atomic_fetch_add(&board->whole[me], 1);
}

static void process_enter(struct process *process, uint64_t number, uint64_t roster)
{
    struct comm_member members[PROCESSES];
    struct comm_generation generation = {.number = number,
                                         .nonce = number * 7,
                                         .members = members,
                                         .me = COMM_VISITOR};
    memset(members, 0, sizeof members);
    memset(generation.key, (int)number, sizeof generation.key);
    for (uint32_t i = 0; i < PROCESSES; i++) {
        if ((roster >> i & 1) != 0) {
            uint32_t rank = generation.member_count++;
            memcpy(members[rank].id, board->id[i], COMM_ID_BYTES);
            memcpy(members[rank].address, board->address[i], COMM_ADDRESS_BYTES);
            members[rank].rank = rank;
            generation.me = i == process->me ? rank : generation.me;
        }
    }
    process->number = number;
    if (comm_enter(process->fixture.ends[0].comm, &generation) != COMM_OK) {
        _exit(3);
    }
}

/* Everybody sends large frames to everybody, all the time. */
static void process_send(struct process *process)
{
    struct test_end *end = &process->fixture.ends[0];
    for (uint32_t i = 0; i < PROCESSES && end->ready == process->number && process->busy < 6; i++) {
        uint32_t peer = comm_peer_at(end->comm, process->turn++ % PROCESSES);
        uint32_t to = 0;
        if (peer == COMM_NO_PEER) {
            continue;
        }
        while (memcmp(board->id[to], comm_peer_member(end->comm, peer)->id, COMM_ID_BYTES) != 0) {
            to++;
        }
        struct comm_frame frame = {.kind = COMM_PIECE, .value = {process->seed, to}};
        struct comm_part part = {process->data, FRAME_BYTES};
        process->busy += comm_send(end->comm, peer, &frame, &part, 1, &end->limits) == COMM_OK;
    }
}

/* Follows the board until it is killed. */
static void process_run(uint32_t me)
{
    static struct process process;
    process.me = me;
    fixture_open(&process.fixture, me % 2 == 0 ? CARRIER_UNIX : CARRIER_TCP4, 1, NULL);
    struct test_end *end = &process.fixture.ends[0];
    end->on_frame = process_frame;
    process.data = malloc(FRAME_BYTES);
    pattern_fill(process.data, FRAME_BYTES, process.seed);
    memcpy(board->id[me], end->id, COMM_ID_BYTES);
    memcpy(board->address[me], end->address, COMM_ADDRESS_BYTES);
    atomic_fetch_add(&board->open, 1);
    for (;;) {
        uint64_t plan = atomic_load(&board->plan);
        uint64_t halted = atomic_load(&board->halted);
        uint32_t done = 0;
        if (halted > process.halted) {
            comm_halt(end->comm);
            memset(process.data, 0xEE, FRAME_BYTES);
            process.halted = halted;
            process.seed = halted;
            pattern_fill(process.data, FRAME_BYTES, process.seed);
        }
        if (plan >> PROCESSES > process.number && (plan >> me & 1) != 0) {
            process_enter(&process, plan >> PROCESSES, plan % (1u << PROCESSES));
        }
        process_send(&process);
        uv_run(&process.fixture.loop, UV_RUN_NOWAIT);
        for (unsigned i = 0; i < sizeof end->sent / sizeof end->sent[0]; i++) {
            done += end->sent[i];
        }
        memset(end->sent, 0, sizeof end->sent);
        process.busy -= done;
        atomic_store(&board->ready[me], end->ready);
        atomic_store(&board->lost[me], end->lost);
    }
}

static void wait_for(atomic_ullong *value, uint64_t wanted, const char *what)
{
    for (unsigned i = 0; atomic_load(value) < wanted; i++) {
        usleep(1000);
        if (i > 60000) {
            fail_msg("waited in vain for %s: %llu, not %llu", what,
                     (unsigned long long)atomic_load(value), (unsigned long long)wanted);
        }
    }
}

static void new_generation(uint64_t number, uint64_t roster)
{
    atomic_store(&board->plan, number << PROCESSES | roster);
    for (uint32_t i = 0; i < PROCESSES; i++) {
        if ((roster >> i & 1) != 0) {
            wait_for(&board->ready[i], number, "ready");
        }
    }
}

static void wait_for_traffic(uint64_t roster)
{
    for (uint32_t i = 0; i < PROCESSES; i++) {
        if ((roster >> i & 1) != 0) {
            wait_for(&board->whole[i], atomic_load(&board->whole[i]) + 4, "frames");
        }
    }
}

static pid_t start_process(uint32_t me)
{
    unsigned before = atomic_load(&board->open);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        process_run(me);
    }
    while (atomic_load(&board->open) == before) {
        usleep(1000);
    }
    return pid;
}

/* kill -9 in the middle of large frames, again and again: the others notice, go on together over
 * the same connections, the dead one's successor joins, and no frame is ever garbled. */
static void processes_are_killed_and_replaced(void **state)
{
    pid_t pids[PROCESSES];
    uint64_t number = 1;
    const uint64_t all = (1u << PROCESSES) - 1;
    (void)state;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    for (uint32_t i = 0; i < PROCESSES; i++) {
        pids[i] = start_process(i);
    }
    for (unsigned round = 0; round < 6; round++) {
        uint32_t victim = round % PROCESSES;
        uint64_t others = all & ~(UINT64_C(1) << victim);
        uint64_t lost[PROCESSES];
        new_generation(number, all);
        wait_for_traffic(all);
        for (uint32_t i = 0; i < PROCESSES; i++) {
            lost[i] = atomic_load(&board->lost[i]);
        }
        kill(pids[victim], SIGKILL);
        waitpid(pids[victim], NULL, 0);
        for (uint32_t i = 0; i < PROCESSES; i++) {
            if (i != victim) {
                wait_for(&board->lost[i], lost[i] + 1, "a loss");
                assert_int_equal(atomic_load(&board->lost[i]), lost[i] + 1);
            }
        }
        atomic_store(&board->halted, number);
        atomic_store(&board->ready[victim], 0);
        new_generation(++number, others);
        wait_for_traffic(others);
        pids[victim] = start_process(victim);
        number++;
    }
    /* One that is stopped blocks only what is sent to it, and goes on as if nothing had been. */
    new_generation(number, all);
    kill(pids[1], SIGSTOP);
    usleep(300 * 1000);
    kill(pids[1], SIGCONT);
    wait_for_traffic(all);
    assert_int_equal(atomic_load(&board->garbled), 0);
    for (uint32_t i = 0; i < PROCESSES; i++) {
        int status = 0;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], &status, 0);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
    }
    munmap(board, sizeof *board);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_are_killed_and_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
