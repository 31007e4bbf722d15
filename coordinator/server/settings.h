/* The daemon's options, as one table. */
#ifndef SERVER_SETTINGS_H
#define SERVER_SETTINGS_H

#include "base/options.h"

struct settings {
    const char *listen, *http; /* HOST:PORT */
    const char *state;         /* folder */
    const char *control;       /* path of the control socket; NULL = in the state folder */
    const char *log_format;    /* "text" or "json" */
    bool insecure;
    uint64_t beat_ms, quiet_ms;
    uint64_t suspect_beats, lost_beats;
    uint64_t stalled_ms, stalled_steps, startup_ms;
    uint64_t restart_budget;
    uint64_t cooldown_losses, cooldown_ms;
    bool rebalance;
    const char *on_deadlock;   /* "report", "abort" or "evict" */
    uint64_t members_max, jobs_max;
};

extern const struct option_spec settings_table[];
extern const size_t settings_count;

#endif
