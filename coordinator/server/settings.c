#include "server/settings.h"

#define FIELD(name) offsetof(struct settings, name)

const struct option_spec settings_table[] = {
    {"listen", OPTION_TEXT, "ADDR:PORT", "127.0.0.1:7070", 0, 0, NULL, FIELD(listen), "Serving",
     "where members connect; port 0 picks one"},
    {"http", OPTION_TEXT, "ADDR:PORT", "127.0.0.1:7071", 0, 0, NULL, FIELD(http), "Serving",
     "where status is read: /v1/status, /metrics, /healthz"},
    {"state", OPTION_TEXT, "DIR", "./muster-state", 0, 0, NULL, FIELD(state), "Serving",
     "folder of the coordinator's memory; made when it does not exist"},
    {"control", OPTION_TEXT, "PATH", NULL, 0, 0, NULL, FIELD(control), "Serving",
     "Unix socket for what changes things; without it control.sock in the state folder"},
    {"insecure", OPTION_FLAG, "", NULL, 0, 0, NULL, FIELD(insecure), "Serving",
     "serve members without encryption on addresses that are not loopback"},
    {"log-format", OPTION_CHOICE, "FORMAT", "text", 0, 0, "text|json", FIELD(log_format), "Serving",
     "form of the log lines on standard error"},
    {"quiet", OPTION_DURATION, "TIME", "2s", 0, 600000, NULL, FIELD(quiet_ms), "Jobs",
     "with --min members there, start when nobody has come for so long"},
    {"restart-budget", OPTION_NUMBER, "N", "64", 1, 1000000, NULL, FIELD(restart_budget), "Jobs",
     "losses without any progress after which a job has failed"},
    {"cooldown-losses", OPTION_NUMBER, "N", "3", 1, 1000000, NULL, FIELD(cooldown_losses), "Jobs",
     "after so many losses of one node within --cooldown its newcomers wait"},
    {"cooldown", OPTION_DURATION, "TIME", "60s", 0, 86400000, NULL, FIELD(cooldown_ms), "Jobs",
     "and so long, while other nodes train"},
    {"beat", OPTION_DURATION, "TIME", "500ms", 50, 60000, NULL, FIELD(beat_ms), "Detection",
     "how often members say that they live"},
    {"suspect-beats", OPTION_NUMBER, "N", "3", 1, 1000, NULL, FIELD(suspect_beats), "Detection",
     "missed beats until a member is suspect"},
    {"lost-beats", OPTION_NUMBER, "N", "5", 2, 1000, NULL, FIELD(lost_beats), "Detection",
     "missed beats until a silent member is lost"},
    {"stalled", OPTION_DURATION, "TIME", "5s", 100, 86400000, NULL, FIELD(stalled_ms), "Detection",
     "least time that a member may owe others a step's sums"},
    {"stalled-steps", OPTION_NUMBER, "N", "20", 2, 100000, NULL, FIELD(stalled_steps), "Detection",
     "and so many times the job's usual step time"},
    {"startup", OPTION_DURATION, "TIME", "2m", 1000, 86400000, NULL, FIELD(startup_ms), "Detection",
     "least time for start-up, evaluation and checkpoints while others wait"},
    {"members-max", OPTION_NUMBER, "N", "16384", 1, 100000, NULL, FIELD(members_max), "Limits",
     "sessions of all jobs together"},
    {"jobs-max", OPTION_NUMBER, "N", "64", 1, 4096, NULL, FIELD(jobs_max), "Limits",
     "jobs at a time, done ones included"},
};

const size_t settings_count = sizeof settings_table / sizeof settings_table[0];
