/* What the files of the trainer share. One loop, one thread; compute threads get tasks and hand
 * them back.
 *
 *   train.c     the page: every action of the elastic machine is one named call
 *   trainer.c   its beginning and end: device, data, state, data plane, signals
 *   compute.c   tasks: shards, updates, evaluation
 *   reduce.c    the exchange of a step: sums, comm and device together
 *   inspect.c   the self-check before sums leave; shards computed again for an audit
 *   transfer.c  copies of R and state for a member that regroups
 *   joiner.c    a spare's catch-up;  visitors.c  serving it
 *   control.c   the coordinator's words to events, and back
 *   report.c    log lines and the terminal;  save.c  checkpoints
 *   crash.c     what is still written on a fatal signal */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "base/error.h"
#include "base/jsonl.h"
#include "client/muster.h"
#include "comm/comm.h"
#include "data/mnist.h"
#include "train/catchup.h"
#include "train/elastic.h"
#include "train/exchange.h"
#include "train/fingerprint.h"
#include "train/pace.h"
#include "train/pool.h"
#include "train/settings.h"
#include "train/state.h"
#include "train/sums.h"

#include <stdio.h>
#include <uv.h>

#define EVENTS_MAX   64
#define VISITORS_MAX 64 /* as many as comm lets in */

struct trainer;

/* A thread's own things. */
struct lane {
    struct device_stream *stream;
    struct model_context *model;
    uint8_t *images, *labels; /* of one shard, gathered */
    void *stack;              /* of the handler of fatal signals */
    uint32_t thread;          /* the kernel's number */
    bool busy;                /* with a shard; atomic */
};

/* Work for a compute thread. */
struct shard_task {
    struct pool_task task;
    struct trainer *trainer;
    uint64_t step;
    uint32_t shard;
    float *leaf;
    bool computed;            /* false: it was no longer wanted */
    uint64_t took_us;         /* on its thread */
    bool hashed;              /* an audit may ask for the hash of its gradient */
    bool audit_only;          /* its sums are another member's: only the hash is wanted */
    uint64_t bucket_hash[MODEL_BUCKETS_MAX];
    struct shard_word {
        struct pool_word word;
        struct shard_task *task;
        struct sums_top top;
    } words[MODEL_BUCKETS_MAX];
    uint32_t words_open;      /* told and not yet heard */
    bool ended;
    struct shard_task *next_free;
    struct shard_task *next_made; /* of all, for the end */
};

struct range_task {
    struct pool_task task;
    struct trainer *trainer;
    uint64_t first, count;    /* blocks, or test samples */
    double metrics[3];
};

/* The shard of a step that an audit may ask for. */
struct audit_work {
    uint64_t step;
    uint32_t shard;
    bool asked;               /* it was posted for the audit alone */
    bool here;                /* its hash is known */
    uint64_t hash;
};

/* A spare that catches up here. */
struct visitor {
    bool used;
    uint32_t peer;
    uint32_t serial;          /* of its subscription */
    struct catchup_source source;
    uint32_t queued;          /* blobs under way to it */
};

/* Bytes under way that live as long as somebody sends them. */
struct blob {
    uint32_t references;
    size_t bytes;
    float data[];
};

/* A record that a spare has received and not yet used up. */
struct record {
    uint64_t step;
    float clip;
    float *reduced;           /* [gradient_count], its own; NULL = none */
};

/* The catch-up of a spare, this process. */
struct joiner {
    bool active;              /* CATCH_UP was asked for */
    bool whole;               /* CAUGHT_UP was said */
    uint32_t source;          /* peer it subscribed to, or COMM_NO_PEER */
    uint32_t serial;          /* of the subscription */
    uint32_t restarts;        /* of this catch-up */
    uint32_t next_rank;       /* whom to ask next, modulo the world */
    struct catchup catchup;
    uint64_t *version;        /* [chunks of the state], its own */
    uint64_t told_version;    /* the newest version whose hash the source has told */
    uint64_t told_hash;       /* 0 = it has told none */
    struct record records[CATCHUP_RECORDS_MAX]; /* by step % CATCHUP_RECORDS_MAX */
};

struct trainer {
    const struct settings *settings;
    uv_loop_t *loop;
    struct elastic elastic;
    struct elastic_event events[EVENTS_MAX]; /* a ring: events that came while one was worked on */
    uint32_t events_first, events_count;
    bool stepping;
    struct elastic_actions actions;          /* of the event being worked on */
    struct elastic_roster roster;            /* of the event under way */
    struct plan_shape shape;
    uint64_t steps_total;
    struct elastic_id me;
    int exit_code;
    bool leaving;                            /* EXIT was said; the loop ends when all is closed */
    char exit_text[ELASTIC_TEXT_BYTES];
    char linger_text[ELASTIC_TEXT_BYTES];    /* why it ends when linger_timer says so */

    /* device, data, state */
    const struct device_ops *ops;
    struct device *device;
    struct lane lanes[POOL_THREADS_MAX];
    struct device_stream *stream;            /* the loop's own */
    struct device_event *reduced;            /* R is whole, for the streams that apply it */
    struct pool *pool;
    struct mnist mnist;
    struct prefetch *prefetch;               /* gathers the next step's samples */
    char spec[SETTINGS_SPEC_BYTES];          /* what defines the bits: options, data, --init's
                                                values */
    char fingerprint[CKPT_FINGERPRINT_BYTES]; /* what else decides them: kernels, libraries */
    struct state state;
    struct sums sums;
    uint64_t hash;                           /* of the parameters at state.applied, if hashed */
    bool hashed;                             /* else trainer_hash() makes it */
    double loss;                             /* of the last finished step */
    double accuracy;                         /* on the test set */

    /* compute */
    struct shard_task *free_tasks, *made_tasks;
    uint32_t shards_open;                    /* shard tasks with a thread or waiting */
    volatile bool skip_shards;               /* tasks that have not begun do nothing */
    void (*when_idle)(struct trainer *t);    /* waits until no shard task is open; NULL = nothing */
    bool updating;                           /* values are being written: of no version just now */
    uint64_t apply_step;
    bool apply_hashed;                       /* the update hashes what it writes */
    float apply_clip;
    struct range_task ranges[POOL_THREADS_MAX];
    uint32_t ranges_open;
    uint64_t compute_us;                     /* when the step's sums were asked for */
    struct pace pace;                        /* how long a shard takes here */

    /* inspection */
    struct range_task check_ranges[POOL_THREADS_MAX];
    uint32_t checks_open;                    /* ranges of a check with a thread or waiting */
    bool check_wanted;                       /* the exchange waits for its answer */
    bool check_again;                        /* but it is asked about a later moment */
    uint64_t *check_hashes;                  /* [state.block_count], its own */
    struct audit_work audit;
    uint64_t audit_told;                     /* generation for which it was told that --audit is not
                                                the same everywhere */

    /* exchange */
    struct comm *comm;                       /* NULL: alone */
    struct exchange *exchange[2];            /* by step % 2 */
    uint64_t exchange_step[2];
    bool exchange_begun[2], exchange_started[2];
    uint32_t marked_entered[2], marked_left[2]; /* bit b: what the ledger knows of bucket b */
    struct exchange_votes votes;             /* of the exchange that ended last */
    bool reduced_whole;                      /* state.reduced is R(applied - 1), to the last byte */
    uint64_t exchange_base;                  /* oldest step that may be exchanged now */
    float *staging;                          /* pieces of my chunk, node by node */
    size_t staging_floats;
    float *temps;                            /* PLAN_TEMPS_MAX x my largest chunk */
    size_t temps_floats;
    uint8_t key[COMM_KEY_BYTES], plan_key[COMM_KEY_BYTES], view_key[COMM_KEY_BYTES];
    struct addresses {
        char address[ELASTIC_WORLD_MAX][COMM_ADDRESS_BYTES];
    } formed_addresses, plan_addresses, view_addresses;
    uint64_t plan_told;                      /* number of the newest plan heard of */

    /* copies */
    uint64_t copy_version;                   /* asked for; 0 = nothing is */
    bool copy_state;
    uint32_t copy_peer;
    uint64_t copy_bytes, copy_got;
    struct joiner joiner;
    struct visitor visitors[VISITORS_MAX];

    /* control */
    struct muster *session;
    uv_poll_t session_poll;
    bool session_polled, session_up, session_ended;
    uint64_t session_us;                     /* when it was opened; 0 = what it lacks was told */
    uint8_t job_uid[16];
    uint64_t known_generation;
    uv_timer_t done_timer, drain_timer, beat_timer, linger_timer, disk_timer;
    uint64_t detect_us, push_us, rendezvous_us; /* of the generation being entered */
    char reason[256];

    /* checkpoints */
    struct save_job *save;                   /* being written, NULL = none */
    uint64_t save_again;                     /* version asked for meanwhile; it is not overwritten
                                                before it is copied, or given up */
    bool save_last_due;
    bool disk_told;                          /* that training waits for the disk */
    bool last_unsaved;                       /* the last state of all is not on disk */

    /* telling */
    FILE *log;
    bool log_failed;                         /* a line could not be written, and that was said */
    struct jsonl line;
    int progress; /* a supervisor's pipe: a byte for each step; -1 = none */
    bool terminal;
    uint64_t started_us, told_us, told_step;
    double samples_per_s;
    uv_signal_t on_term, on_int;
    void *stack;                             /* the loop's, of the handler of fatal signals */
    uint32_t signals;
};

/* ---- trainer.c */
int trainer_open(struct trainer *t, struct error *error);
void trainer_close(struct trainer *t); /* accepts one that is half open */
void trainer_reload(struct trainer *t);
uint64_t trainer_hash(struct trainer *t); /* of the parameters, made now if there is none */
void trainer_rehash(struct trainer *t);   /* they came from elsewhere: all blocks anew */

/* ---- train.c */
void trainer_event(struct trainer *t, const struct elastic_event *event);
struct elastic_event trainer_event_of(enum elastic_event_type type);
void trainer_exit(struct trainer *t, int code, const char *text);

/* ---- compute.c */
int compute_open(struct trainer *t, struct error *error);
void compute_close(struct trainer *t);
void compute_shards(struct trainer *t, uint64_t step, const struct plan_mask *shards);
void compute_audit(struct trainer *t, uint64_t step, uint32_t shard); /* for its hash alone */
void compute_when_idle(struct trainer *t, void (*then)(struct trainer *t));
void compute_go_on(struct trainer *t);    /* a task has ended: perhaps all have */
void compute_apply(struct trainer *t, uint64_t step, bool hashed);
bool compute_would_apply(const struct trainer *t); /* an update is due and has not begun */
void compute_evaluate(struct trainer *t);
/* Posts ranges [POOL_THREADS_MAX] of `all` items, one per thread; how many there are. */
uint32_t compute_ranges(struct trainer *t, struct range_task *ranges, uint64_t all,
                        void (*run_cb)(struct pool_task *task, uint32_t thread),
                        void (*done_cb)(struct pool_task *task));

/* ---- inspect.c */
void inspect_check(struct trainer *t);
void inspect_stop(struct trainer *t);
void inspect_audit(struct trainer *t, uint64_t step, uint32_t shard);
bool inspect_wants(const struct trainer *t, uint64_t step, uint32_t shard);
void inspect_bucket(struct shard_task *s, struct device_stream *stream, uint32_t bucket);
void inspect_shard_done(struct trainer *t, const struct shard_task *s);
bool inspect_owes(const struct trainer *t);
uint32_t compute_thread(const struct trainer *t); /* one that works on a shard; 0 = none does */

/* ---- reduce.c */
void reduce_connect(struct trainer *t);
void reduce_start(struct trainer *t, const struct elastic_action *action);
void reduce_stop(struct trainer *t);
void reduce_applied(struct trainer *t);
void reduce_top(struct trainer *t, const struct sums_top *top);
void reduce_checked(struct trainer *t, uint64_t hash);
void reduce_audited(struct trainer *t);
void *reduce_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame);
void reduce_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame);
void reduce_prepare(struct trainer *t);
void reduce_release(struct trainer *t);

/* ---- transfer.c */
enum request { REQUEST_REDUCED = 1, REQUEST_STATE = 2, REQUEST_RECORDS = 3 }; /* value[0] */
void transfer_copy(struct trainer *t, const struct elastic_action *action);
void *transfer_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame);
void transfer_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame,
                    void *payload);
void transfer_drop(struct trainer *t, uint32_t peer, const struct comm_frame *frame, void *payload);
void transfer_lost(struct trainer *t, uint32_t peer);

/* ---- joiner.c */
void joiner_begin(struct trainer *t);
void joiner_end(struct trainer *t);
void joiner_connected(struct trainer *t, uint64_t number);
void *joiner_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame);
void joiner_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame, float *payload);
void joiner_dropped(struct trainer *t, uint32_t peer, uint32_t serial);
void joiner_lost(struct trainer *t, uint32_t peer);
void joiner_release(struct trainer *t);

/* ---- visitors.c */
void visitors_add(struct trainer *t, uint32_t peer, uint32_t serial);
void visitors_applied(struct trainer *t, uint64_t plan);
void visitors_sent(struct trainer *t, uint32_t peer, struct blob *blob);
void visitors_lost(struct trainer *t, uint32_t peer);
void visitors_clear(struct trainer *t);

/* ---- control.c */
int control_open(struct trainer *t, struct error *error);
void control_say(struct trainer *t, const struct elastic_action *action);
void control_linger(struct trainer *t, const struct elastic_action *action);
void control_progress(struct trainer *t);
void control_close(struct trainer *t);

/* ---- report.c */
int report_open(struct trainer *t, struct error *error);
void report_generation(struct trainer *t, const struct elastic_action *action);
void report_step(struct trainer *t, const struct elastic_action *action);
void report_samples(struct trainer *t, uint64_t step, uint32_t shard);
void report_done(struct trainer *t);
void report_note(struct trainer *t, const char *text);    /* not with --quiet */
void report_warning(struct trainer *t, const char *text);
void report_close(struct trainer *t);

/* ---- save.c */
int save_prepare(const struct trainer *t, struct error *error); /* is there a folder to write to? */
void save_begin(struct trainer *t, uint64_t version, bool last);
bool save_open(const struct trainer *t);
bool save_waits(const struct trainer *t); /* the update waits until its state can be copied */
void save_give_up(struct trainer *t);     /* it shall wait no longer */
void save_bound(struct trainer *t);       /* it waits: not for ever, where others wait for it */

/* Faults for tests (fault.c). Without MUSTER_FAULTS nothing happens there, and shards are worked in
 * order. */
#ifdef MUSTER_FAULTS
void fault_point(const struct trainer *t, const char *phase, uint64_t step);
/* the i-th shard to be worked */
uint32_t fault_order(const struct trainer *t, uint64_t step, uint32_t i);
/* Flips a bit of the values if MUSTER_FLIP says so. */
void fault_flip(const struct trainer *t, const char *what, uint64_t step, float *values,
                uint64_t count);
#else
static inline void fault_flip(const struct trainer *t, const char *what, uint64_t step,
                              float *values, uint64_t count)
{
    (void)t;
    (void)what;
    (void)step;
    (void)values;
    (void)count;
}

static inline uint32_t fault_order(const struct trainer *t, uint64_t step, uint32_t i)
{
    (void)t;
    (void)step;
    return i;
}

static inline void fault_point(const struct trainer *t, const char *phase, uint64_t step)
{
    (void)t;
    (void)phase;
    (void)step;
}
#endif

#endif
