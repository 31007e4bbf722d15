/* What the three files of the elastic machine share: elastic.c (the switch, spares, leaving),
 * elastic_step.c (a step from its sums to its end), elastic_regroup.c (from the end of a generation
 * to the step of the next). */
#ifndef TRAIN_ELASTIC_PRIVATE_H
#define TRAIN_ELASTIC_PRIVATE_H

#include "train/elastic.h"

/* elastic.c */

struct elastic_action *elastic_act(struct elastic_actions *actions, enum elastic_action_type type);
void elastic_go(struct elastic *e, struct elastic_actions *actions); /* a leaver, released */
void elastic_leave_for_good(struct elastic *e, struct elastic_actions *actions, int code,
                            const char *text);
uint32_t elastic_find_rank(const struct elastic_roster *roster, const struct elastic_id *id);
struct plan_mask elastic_none_held(void);
struct plan_mask elastic_due_now(const struct elastic *e);
void elastic_new_version(struct elastic *e, uint64_t version, uint64_t hash);
void elastic_new_state(struct elastic *e, uint64_t version, uint64_t hash);

/* elastic_step.c */

void elastic_compute_missing(struct elastic *e, struct elastic_actions *actions);
void elastic_begin_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions);
void elastic_enter_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions);
void elastic_apply(struct elastic *e, struct elastic_actions *actions);
void elastic_finish(struct elastic *e, struct elastic_actions *actions);
void elastic_on_exchanged(struct elastic *e, const struct elastic_event *event,
                          struct elastic_actions *actions);
void elastic_on_corrupt(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions);
void elastic_on_applied(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions);
void elastic_on_saved(struct elastic *e, uint64_t version, struct elastic_actions *actions);
void elastic_on_shard_done(struct elastic *e, const struct elastic_event *event,
                           struct elastic_actions *actions);

/* elastic_regroup.c */

struct elastic_action *elastic_save(struct elastic *e, struct elastic_actions *actions);
void elastic_freeze(struct elastic *e, struct elastic_actions *actions);
void elastic_on_over(struct elastic *e, const struct elastic_event *event,
                     struct elastic_actions *actions);
void elastic_on_formed(struct elastic *e, const struct elastic_event *event,
                       struct elastic_actions *actions);
void elastic_enter_plan(struct elastic *e, uint64_t now_us, struct elastic_actions *actions);
void elastic_pause(struct elastic *e, struct elastic_actions *actions);
void elastic_pause_words(struct elastic *e, struct elastic_actions *actions);
void elastic_take_boundary(struct elastic *e, uint64_t now_us, struct elastic_actions *actions);
void elastic_on_plan(struct elastic *e, const struct elastic_event *event,
                     struct elastic_actions *actions);
void elastic_on_view(struct elastic *e, const struct elastic_event *event,
                     struct elastic_actions *actions);
void elastic_on_connected(struct elastic *e, const struct elastic_event *event,
                          struct elastic_actions *actions);
void elastic_on_reloaded(struct elastic *e, const struct elastic_event *event,
                         struct elastic_actions *actions);
void elastic_on_copied(struct elastic *e, const struct elastic_event *event,
                       struct elastic_actions *actions);

#endif
