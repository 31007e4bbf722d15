/* The simulated network: hosts, paths between them, and the control connections of members.
 *
 * A path is directed and has two planes: control (member <-> coordinator) and data (member <->
 * member, mesh.h). It can be cut, clogged, slow or lossy. Connections behave as TCP does: in order,
 * reliable, and silent about it while a path is cut. A packet that is lost comes later, and holds
 * up those behind it; a cut that lasts longer than SIM_TCP_TIMEOUT_US breaks the end that has
 * something to send, and that end alone (the other is half open until it sends something itself).
 *
 *   sim_net_dial(sim, member)            -> sim_coord_opened(), sim_member_connected() / _closed()
 *   sim_net_say(sim, conn, end, message) -> sim_coord_message() or sim_member_message() there
 *   sim_net_hang_up(sim, conn, end)      -> the other end is told after what was said
 *   sim_net_reset(sim, conn)             -> both ends are told; what was on its way is gone */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_TCP_TIMEOUT_US UINT64_C(8000000)
#define SIM_NO_CONN        UINT32_MAX

struct sim;

enum sim_plane { SIM_CONTROL, SIM_DATA, SIM_PLANES };
enum sim_end { SIM_END_MEMBER, SIM_END_COORD };

/* One direction between two hosts. */
struct sim_path {
    uint32_t cuts[SIM_PLANES];    /* faults that cut it now */
    uint64_t clog_until_us;       /* nothing passes before */
    uint32_t slow_us[SIM_PLANES]; /* added to every packet */
    uint32_t jitter_us;           /* most, drawn for every packet */
    uint32_t loss_permille;       /* packets that come one retransmission later */
};

struct sim_packet {
    struct sim_packet *next;      /* behind it in the pipe */
    uint64_t due_us;              /* when it arrives, if the path is open */
    bool end;                     /* no message: the sender closed */
    bool small;                   /* from the pool */
    struct wire_message message;  /* points into the memory behind this struct */
};

/* One direction of a connection. */
struct sim_pipe {
    struct sim_packet *first;     /* owned */
    struct sim_packet *last;
    uint64_t due_us;              /* arrival of the last packet */
    uint64_t stuck_us;            /* since when the path is shut; 0 = it is not */
    uint64_t armed_us;            /* an event is set for then; 0 = none */
};

struct sim_conn {
    uint32_t serial;              /* events of an older one are void */
    bool used;
    bool open[2];                 /* by enum sim_end: this end's process holds it */
    bool accepted;                /* the coordinator's kernel took it */
    uint32_t member;              /* whose it is */
    uint32_t hosts[2];            /* of both ends */
    uint64_t opened_us;           /* when the coordinator saw it */
    uint64_t heard_us;            /* when the coordinator last got something over it; 0 = nothing
                                     yet */
    struct sim_pipe pipe[2];      /* by sending end */
};

struct sim_net {
    uint32_t host_count;          /* host 0 is the coordinator's */
    bool *host_down;              /* owned, one per host */
    struct sim_path *paths;       /* owned, [from * host_count + to] */
    struct sim_conn *conns;       /* owned */
    uint32_t conn_count;          /* capacity */
    uint32_t conn_free;           /* where the search for a free one starts */
    struct sim_packet *pool;      /* small packets not in use */
    uint32_t latency_us;          /* least, of every packet */
    uint32_t jitter_us;           /* most, on top of it */
};

void sim_net_init(struct sim *sim, uint32_t host_count, uint32_t conn_count);
void sim_net_release(struct sim *sim);

struct sim_path *sim_net_path(struct sim *sim, uint32_t from, uint32_t to);

/* When something sent now arrives at the earliest; randomness, loss and slowness of the path are in
 * it. */
uint64_t sim_net_arrival_us(struct sim *sim, uint32_t from, uint32_t to, enum sim_plane plane);

/* 0 when the path is open now, else when to look again. */
uint64_t sim_net_shut_until_us(struct sim *sim, uint32_t from, uint32_t to, enum sim_plane plane);

void sim_net_dial(struct sim *sim, uint32_t member);
void sim_net_say(struct sim *sim, uint32_t conn, enum sim_end end,
                 const struct wire_message *message);
void sim_net_hang_up(struct sim *sim, uint32_t conn, enum sim_end end);
void sim_net_reset(struct sim *sim, uint32_t conn);

/* The process at this end is gone. quiet: its host too, so that nobody tells the other end. */
void sim_net_abandon(struct sim *sim, uint32_t conn, enum sim_end end, bool quiet);

/* Events of the heap. */
void sim_net_syn(struct sim *sim, uint32_t conn);
void sim_net_accept(struct sim *sim, uint32_t conn);
void sim_net_answer(struct sim *sim, uint32_t conn, bool refused);
void sim_net_pipe(struct sim *sim, uint32_t conn, enum sim_end from);
void sim_net_broken(struct sim *sim, uint32_t conn, enum sim_end end);

#endif
