/* What must hold of the elastic machine after every event, and its words for people. */
#include "train/elastic.h"

int elastic_check(const struct elastic *e, const char **sentence)
{
    struct plan_mask more = plan_mask_minus(&e->held, &e->asked);

    *sentence = "";
    if (e->generation.number > e->number_max) {
        *sentence = "a generation was entered that is newer than the newest one seen";
        return 1;
    }
    if (e->applied > e->config.steps_total) {
        *sentence = "more updates applied than the job has steps";
        return 2;
    }
    if (!plan_mask_empty(&more)) {
        *sentence = "sums are held that nobody asked for";
        return 5;
    }
    if (e->plan.number != 0 && e->plan.number <= e->generation.number) {
        *sentence = "a plan is held that is not newer than the generation";
        return 6;
    }
    if (elastic_training(e) && e->rank >= e->generation.world) {
        *sentence = "it trains without a rank";
        return 7;
    }
    return 0;
}

/* ---- names ---------------------------------------------------------------------------------- */

const char *elastic_state_word(enum elastic_state state)
{
    static const char *const words[] = {
#define ELASTIC_STATE_WORD(name, word) word,
        ELASTIC_STATES(ELASTIC_STATE_WORD)
#undef ELASTIC_STATE_WORD
    };

    return words[state];
}

const char *elastic_event_name(enum elastic_event_type type)
{
    static const char *const names[] = {
#define ELASTIC_EVENT_NAME(name) #name,
        ELASTIC_EVENTS(ELASTIC_EVENT_NAME)
#undef ELASTIC_EVENT_NAME
    };

    return names[type];
}

const char *elastic_action_name(enum elastic_action_type type)
{
    static const char *const names[] = {
#define ELASTIC_DO_NAME(name) #name,
        ELASTIC_DO(ELASTIC_DO_NAME)
#undef ELASTIC_DO_NAME
    };

    return names[type];
}
