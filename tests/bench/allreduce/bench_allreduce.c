/* All-reduce of a float buffer between processes of this host, without training: the worker's
 * comm/tcp, train/exchange and plan of additions; buckets of one size and loops of its own for the
 * additions, in place of the model's buckets and the device's. One JSON line on stdout.
 *
 *     bench_allreduce WORLD BYTES SECONDS [tcp]       tcp: no Unix sockets between the processes
 *
 * Every rank is a process with one thread. A step is one exchange: all pieces, all additions, all
 * results and the words of the step; the next one starts when it is complete. Rank 0 writes down
 * the times. */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "comm/comm.h"
#include "comm/tcp/tcp.h"
#include "train/exchange.h"

#define WORLD_MAX 8
#define STEPS_MAX 200000
#define BLOCK_FLOATS 2048            /* additions go block by block, so that temporaries stay in a
                                        cache */
#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)
#define LARGE_BYTES (UINT64_C(8) << 20)
#define BUCKET_BYTES (768 * 1024)    /* wished; there are EXCHANGE_BUCKETS_MAX at most */

/* What the processes share. */
struct board {
    char address[WORLD_MAX][COMM_ADDRESS_BYTES];
    atomic_uint listening;            /* ranks that are */
    atomic_uint finished;             /* ranks that are: nobody closes before all have their
                                         results */
    atomic_ullong last_step;          /* rank 0 sets it: nobody goes on after this one */
    uint32_t step_us[STEPS_MAX];
    uint64_t cpu_us[WORLD_MAX];       /* of the measured steps */
    uint64_t calls[WORLD_MAX];        /* system calls that moved bytes */
    uint32_t steps;
};

struct rank {
    struct board *board;
    uint32_t me;
    uint32_t world;
    uint64_t floats;
    uint64_t until_ns;
    uv_loop_t loop;
    struct comm *comm;
    struct exchange step[2];          /* this one, and the next that quick peers may have begun */
    uint64_t number;                  /* of the step under way */
    uint64_t started_ns;
    float *mine;                      /* [floats] what I add to the sum */
    float *sum;                       /* [floats] */
    float *pieces[2][WORLD_MAX];      /* by step and sender: my chunks of its buckets, bucket after
                                         bucket */
    uint64_t chunk_at[EXCHANGE_BUCKETS_MAX]; /* where in pieces my chunk of the bucket lies */
    uint64_t bucket_at[EXCHANGE_BUCKETS_MAX];
    bool over;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_allreduce: %s\n", what);
    exit(1);
}

static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static struct exchange *step_of(struct rank *rank, uint64_t number)
{
    return &rank->step[number % 2];
}

/* ---- additions ------------------------------------------------------------------------------- */

/* Vectors of 8 floats by the compiler; the order of additions is that of the program. */
static void add_floats(float *restrict to, const float *restrict a, const float *restrict b,
                       uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        to[i] = a[i] + b[i];
    }
}

static const float *piece_of(struct rank *rank, uint32_t bucket, uint32_t node, uint64_t at)
{
    const struct exchange *x = step_of(rank, rank->number);
    uint32_t owner = x->nodes[node].owner;
    uint64_t first = 0;
    uint64_t count = 0;
    if (owner == rank->me) {
        plan_chunk(x->config.bucket_elements[bucket], rank->world, rank->me, &first, &count);
        return rank->mine + rank->bucket_at[bucket] + first + at;
    }
    return rank->pieces[rank->number % 2][owner] + rank->chunk_at[bucket] + at;
}

static void add_block(struct rank *rank, uint32_t bucket, float *to, uint64_t at, uint64_t count)
{
    static float temps[PLAN_TEMPS_MAX][BLOCK_FLOATS];
    const struct exchange *x = step_of(rank, rank->number);
    for (uint32_t i = 0; i < x->program.op_count; i++) {
        const struct plan_op *op = &x->program.ops[i];
        const float *in[2] = {NULL, NULL};
        const uint16_t slots[2] = {op->a, op->b};
        for (unsigned k = 0; k < 2 && slots[k] != PLAN_COPY; k++) {
            in[k] = slots[k] < x->node_count ? piece_of(rank, bucket, slots[k], at)
                                             : temps[slots[k] - x->node_count];
        }
        float *out = op->dst == PLAN_RESULT ? to + at : temps[op->dst - x->node_count];
        if (in[1] == NULL) {
            memcpy(out, in[0], count * sizeof *out);
        } else {
            add_floats(out, in[0], in[1], count);
        }
    }
}

static void add_chunk(struct rank *rank, uint32_t bucket)
{
    const struct exchange *x = step_of(rank, rank->number);
    uint64_t first = 0;
    uint64_t count = 0;
    plan_chunk(x->config.bucket_elements[bucket], rank->world, rank->me, &first, &count);
    float *to = rank->sum + rank->bucket_at[bucket] + first;
    for (uint64_t at = 0; at < count; at += BLOCK_FLOATS) {
        add_block(rank, bucket, to, at, count - at < BLOCK_FLOATS ? count - at : BLOCK_FLOATS);
    }
}

/* ---- sending --------------------------------------------------------------------------------- */

static void send_chunk(struct rank *rank, uint32_t to, uint32_t kind, uint32_t bucket,
                       uint32_t chunk, uint32_t node, const float *from)
{
    const struct exchange *x = step_of(rank, rank->number);
    uint64_t first = 0;
    uint64_t count = 0;
    plan_chunk(x->config.bucket_elements[bucket], rank->world, chunk, &first, &count);
    struct comm_frame frame = {.step = rank->number,
                               .kind = kind,
                               .bucket = bucket,
                               .chunk = chunk,
                               .level = x->nodes[node].level,
                               .index = x->nodes[node].index};
    struct comm_part part = {from + rank->bucket_at[bucket] + first, count * sizeof *from};
    if (count > 0 &&
        comm_send(rank->comm, comm_peer_at(rank->comm, to), &frame, &part, 1, NULL) != COMM_OK) {
        die("cannot send");
    }
}

static void send_word(struct rank *rank, uint32_t to)
{
    struct comm_frame frame = {.step = rank->number, .kind = COMM_WORD, .value = {1, 2}};
    if (comm_send(rank->comm, comm_peer_at(rank->comm, to), &frame, NULL, 0, NULL) != COMM_OK) {
        die("cannot send");
    }
}

static void complete(struct rank *rank);

/* What the exchange asks for. Ranks are visited beginning after me, so that not all send to rank 0
 * first. */
static void carry_out(struct rank *rank, const struct exchange_action *action)
{
    struct exchange_actions more = {.count = 0};
    for (uint32_t i = 1; i < rank->world; i++) {
        uint32_t to = (rank->me + i) % rank->world;
        if (action->type == EXCHANGE_SEND_WORD) {
            send_word(rank, to);
        } else if (action->type == EXCHANGE_SEND_PIECES) {
            send_chunk(rank, to, COMM_PIECE, action->bucket, to, action->node, rank->mine);
        } else if (action->type == EXCHANGE_SEND_RESULT) {
            send_chunk(rank, to, COMM_RESULT, action->bucket, rank->me, 0, rank->sum);
        }
    }
    if (action->type == EXCHANGE_ADD) {
        add_chunk(rank, action->bucket);
        exchange_added(step_of(rank, rank->number), action->bucket, &more);
    } else if (action->type == EXCHANGE_COMPLETE) {
        complete(rank);
    }
    for (uint32_t i = 0; i < more.count; i++) {
        carry_out(rank, &more.list[i]);
    }
}

static void carry_out_all(struct rank *rank, const struct exchange_actions *actions)
{
    for (uint32_t i = 0; i < actions->count; i++) {
        carry_out(rank, &actions->list[i]);
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void begin(struct rank *rank, uint64_t number)
{
    uint16_t owner[WORLD_MAX];
    struct exchange_config config = {.world = rank->world, .me = rank->me, .shards = rank->world};
    uint64_t wished = BUCKET_BYTES / sizeof(float);
    uint64_t buckets = (rank->floats + wished - 1) / wished;
    config.bucket_count =
        (uint32_t)(buckets < EXCHANGE_BUCKETS_MAX ? buckets : EXCHANGE_BUCKETS_MAX);
    config.owner = owner;
    for (uint32_t i = 0; i < rank->world; i++) {
        owner[i] = (uint16_t)i;
        plan_mask_set(&config.present, i);
    }
    uint64_t pieces = 0;
    uint64_t first = 0;
    uint64_t count = 0;
    for (uint32_t b = 0; b < config.bucket_count; b++) {
        plan_chunk(rank->floats, config.bucket_count, b, &first, &count);
        config.bucket_elements[b] = count;
        rank->bucket_at[b] = first;
        rank->chunk_at[b] = pieces;
        plan_chunk(config.bucket_elements[b], rank->world, rank->me, &first, &count);
        pieces += count;
    }
    exchange_begin(step_of(rank, number), &config);
}

/* Begins the step after this one too: a peer may be there before us. */
static void start(struct rank *rank)
{
    struct exchange *x = step_of(rank, rank->number);
    struct exchange_word word = {1, 2, false, 0};
    begin(rank, rank->number + 1);
    rank->started_ns = uv_hrtime();
    for (uint32_t b = 0; b < x->config.bucket_count; b++) {
        struct exchange_actions actions = {.count = 0};
        exchange_node_ready(
            x, b, exchange_find_node(x, x->nodes[rank->me].level, x->nodes[rank->me].index),
            &actions);
        carry_out_all(rank, &actions);
    }
    struct exchange_actions actions = {.count = 0};
    exchange_start(x, &word, &actions);
    carry_out_all(rank, &actions);
}

static uv_idle_t idle_of_rank; /* starts the next step outside of callbacks */
static uv_timer_t end_of_rank;

static void look_for_the_end(uv_timer_t *timer)
{
    struct rank *rank = timer->data;
    if (atomic_load(&rank->board->finished) == rank->world) {
        uv_stop(&rank->loop);
    }
}

static void next_step(uv_idle_t *idle)
{
    struct rank *rank = idle->data;
    uv_idle_stop(idle);
    if (!rank->over) {
        start(rank);
    } else {
        atomic_fetch_add(&rank->board->finished, 1);
        uv_timer_start(&end_of_rank, look_for_the_end, 0, 1);
    }
}

/* Rank 0 says when it is enough; everybody does the step that it names, and no more. */
static void complete(struct rank *rank)
{
    struct board *board = rank->board;
    uint64_t now_ns = uv_hrtime();
    if (rank->me == 0) {
        board->step_us[board->steps++] = (uint32_t)((now_ns - rank->started_ns) / 1000);
        bool enough = now_ns > rank->until_ns || board->steps + 2 > STEPS_MAX;
        if (enough && atomic_load(&board->last_step) == UINT64_MAX) {
            atomic_store(&board->last_step, rank->number + 2);
        }
    }
    rank->over = rank->number >= atomic_load(&board->last_step);
    rank->number++;
    uv_idle_start(&idle_of_rank, next_step);
}

/* ---- receiving ------------------------------------------------------------------------------- */

static void peer_cb(void *owner, uint32_t peer)
{
    (void)owner;
    (void)peer;
}

static void ready_cb(void *owner, uint64_t number)
{
    (void)number;
    uv_idle_start(&idle_of_rank, next_step);
    (void)owner;
}

static void *place_cb(void *owner, uint32_t peer, const struct comm_frame *frame)
{
    struct rank *rank = owner;
    uint32_t from = comm_peer_member(rank->comm, peer)->rank;
    const struct exchange *x = step_of(rank, frame->step);
    uint64_t first = 0;
    uint64_t count = 0;
    uint32_t bucket = frame->bucket;
    if (frame->step > rank->number + 1 || bucket >= x->config.bucket_count) {
        die("a frame of a step that is not here");
    }
    plan_chunk(x->config.bucket_elements[bucket], rank->world, frame->chunk, &first, &count);
    if (frame->length != count * sizeof(float)) {
        die("a chunk of another size");
    }
    if (frame->kind == COMM_PIECE) {
        return rank->pieces[frame->step % 2][from] + rank->chunk_at[bucket];
    }
    return rank->sum + rank->bucket_at[bucket] + first;
}

static void frame_cb(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    struct rank *rank = owner;
    uint32_t from = comm_peer_member(rank->comm, peer)->rank;
    struct exchange *x = step_of(rank, frame->step);
    struct exchange_actions actions = {.count = 0};
    enum exchange_fault fault = EXCHANGE_FINE;
    (void)payload;
    if (frame->kind == COMM_WORD) {
        struct exchange_word word = {frame->value[0], frame->value[1], false, 0};
        fault = exchange_word(x, from, &word, &actions);
    } else if (frame->kind == COMM_PIECE) {
        uint32_t node = exchange_find_node(x, frame->level, frame->index);
        fault = exchange_piece(x, from, frame->bucket, frame->chunk, node, &actions);
    } else {
        fault = exchange_result(x, from, frame->bucket, frame->chunk, &actions);
    }
    if (fault != EXCHANGE_FINE) {
        die(exchange_fault_text(fault));
    }
    carry_out_all(rank, &actions);
}

static void drop_cb(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    (void)owner;
    (void)peer;
    (void)frame;
    (void)payload;
}

static void sent_cb(void *owner, uint32_t peer, void *tag, enum comm_error result)
{
    (void)owner;
    (void)peer;
    (void)tag;
    (void)result;
}

static void lost_cb(void *owner, uint32_t peer, enum comm_loss why, const char *text)
{
    struct rank *rank = owner;
    (void)peer;
    (void)why;
    if (!rank->over) {
        die(text);
    }
}

/* ---- processes ------------------------------------------------------------------------------- */

static float value_of(uint32_t rank, uint64_t i)
{
    return (float)(rank + 1) * (float)(i % 1021);
}

static void check_sum(const struct rank *rank)
{
    for (uint64_t i = 0; i < rank->floats; i++) {
        float expected = (float)(rank->world * (rank->world + 1) / 2) * (float)(i % 1021);
        if (rank->sum[i] != expected) {
            fprintf(stderr, "bench_allreduce: element %" PRIu64 " is %g, not %g\n", i,
                    (double)rank->sum[i], (double)expected);
            exit(1);
        }
    }
}

/* Huge pages for large buffers, as the worker's device does it. */
static float *floats_new(uint64_t count)
{
    uint64_t align = count * sizeof(float) >= LARGE_BYTES ? HUGE_PAGE_BYTES : 4096;
    uint64_t bytes = (count * sizeof(float) + align) / align * align;
    float *data = aligned_alloc(align, bytes);
    if (data == NULL) {
        die("out of memory");
    }
    if (align == HUGE_PAGE_BYTES) {
        (void)madvise(data, bytes, MADV_HUGEPAGE);
    }
    memset(data, 0, count * sizeof *data);
    return data;
}

static void allocate(struct rank *rank)
{
    rank->mine = floats_new(rank->floats);
    rank->sum = floats_new(rank->floats);
    for (uint64_t i = 0; i < rank->floats; i++) {
        rank->mine[i] = value_of(rank->me, i);
    }
    for (uint32_t i = 0; i < 2 * rank->world; i++) {
        if (i / 2 != rank->me) {
            rank->pieces[i % 2][i / 2] = floats_new(rank->floats / rank->world + 4096);
        }
    }
}

static void open_comm(struct rank *rank, bool same_host)
{
    static const struct comm_events events = {.peer_cb = peer_cb,
                                              .ready_cb = ready_cb,
                                              .place_cb = place_cb,
                                              .frame_cb = frame_cb,
                                              .drop_cb = drop_cb,
                                              .sent_cb = sent_cb,
                                              .lost_cb = lost_cb};
    struct comm_member members[WORLD_MAX];
    struct comm_generation generation = {.number = 1,
                                         .members = members,
                                         .member_count = rank->world,
                                         .me = rank->me};
    struct comm_limits limits;
    char error[256] = "";
    comm_limits_default(&limits);
    limits.same_host = same_host;
    memset(members, 0, sizeof members);
    uint32_t parent = (uint32_t)getppid();
    for (uint32_t i = 0; i < rank->world; i++) {
        memcpy(members[i].id, &parent, sizeof parent);
        members[i].id[15] = (uint8_t)i;
        members[i].rank = i;
    }
    if (comm_tcp_open(&rank->loop, "127.0.0.1:0", members[rank->me].id, &events, rank, &limits,
                      &rank->comm, error, sizeof error) != COMM_OK) {
        die(error);
    }
    comm_address(rank->comm, rank->board->address[rank->me], COMM_ADDRESS_BYTES);
    atomic_fetch_add(&rank->board->listening, 1);
    while (atomic_load(&rank->board->listening) < rank->world) {
        usleep(1000);
    }
    for (uint32_t i = 0; i < rank->world; i++) {
        memcpy(members[i].address, rank->board->address[i], COMM_ADDRESS_BYTES);
    }
    if (comm_enter(rank->comm, &generation) != COMM_OK) {
        die("cannot enter");
    }
}

static void run_rank(struct board *board, uint32_t me, uint32_t world, uint64_t bytes,
                     double seconds, bool same_host)
{
    static struct rank rank;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rank.board = board;
    rank.me = me;
    rank.world = world;
    rank.floats = bytes / sizeof(float);
    uv_loop_init(&rank.loop);
    uv_idle_init(&rank.loop, &idle_of_rank);
    uv_timer_init(&rank.loop, &end_of_rank);
    idle_of_rank.data = &rank;
    end_of_rank.data = &rank;
    allocate(&rank);
    begin(&rank, 0);
    begin(&rank, 1);
    open_comm(&rank, same_host);
    uint64_t before_us = cpu_us();
    rank.until_ns = uv_hrtime() + (uint64_t)(seconds * 1e9);
    uv_run(&rank.loop, UV_RUN_DEFAULT);
    board->cpu_us[me] = cpu_us() - before_us;
    struct comm_counters counters;
    comm_counters(rank.comm, &counters);
    board->calls[me] = counters.calls;
    check_sum(&rank);
    comm_close(rank.comm);
    exit(0);
}

static int compare_us(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void report(struct board *board, uint32_t world, uint64_t bytes)
{
    uint64_t cpu = 0;
    uint64_t calls = 0;
    uint32_t skipped = board->steps > 20 ? 5 : 0; /* caches and buffers warm up */
    uint32_t *times = board->step_us + skipped;
    uint32_t count = board->steps - skipped;
    for (uint32_t i = 0; i < world; i++) {
        cpu += board->cpu_us[i];
        calls += board->calls[i];
    }
    qsort(times, count, sizeof *times, compare_us);
    printf("{\"who\":\"muster\",\"world\":%u,\"bytes\":%" PRIu64 ",\"reps\":%u,\"median_us\":%u,"
           "\"p10_us\":%u,\"p90_us\":%u,\"cpu_us_per_rep\":%" PRIu64 ",\"calls_per_rep\":%" PRIu64
           "}\n",
           world, bytes, count, times[count / 2], times[count / 10], times[count * 9 / 10],
           cpu / board->steps, calls / board->steps);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bench_allreduce WORLD BYTES SECONDS [tcp]\n");
        return 64;
    }
    uint32_t world = (uint32_t)strtoul(argv[1], NULL, 10);
    uint64_t bytes = strtoull(argv[2], NULL, 10) / 64 * 64;
    double seconds = strtod(argv[3], NULL);
    bool same_host = argc < 5 || strcmp(argv[4], "tcp") != 0;
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (world < 2 || world > WORLD_MAX || bytes == 0 || board == MAP_FAILED) {
        die("WORLD is 2 to 8, BYTES at least 64");
    }
    atomic_store(&board->last_step, UINT64_MAX);
    for (uint32_t i = 0; i < world; i++) {
        if (fork() == 0) {
            run_rank(board, i, world, bytes, seconds, same_host);
        }
    }
    int status = 0;
    for (uint32_t i = 0; i < world; i++) {
        int one = 0;
        wait(&one);
        status |= one;
    }
    if (status == 0) {
        report(board, world, bytes);
    }
    return status != 0;
}
