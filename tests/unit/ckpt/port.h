/* The operating system as the library sees it, which writes down every call and refuses the one
 * that was chosen. All others are carried out, but for fsync. */
#ifndef TESTS_UNIT_CKPT_PORT_H
#define TESTS_UNIT_CKPT_PORT_H

#include <stdbool.h>
#include <stddef.h>

#define PORT_LOG_MAX 1024

enum port_call {
    PORT_ANY,
    PORT_OPEN,
    PORT_PREAD,
    PORT_WRITE,
    PORT_FSYNC,
    PORT_CLOSE,
    PORT_RENAME,
    PORT_EXCHANGE,
    PORT_MKDIR,
    PORT_UNLINK,
    PORT_RMDIR
};

/* One call that was let through. */
struct port_row {
    enum port_call call;
    char path[160]; /* of fsync: where its descriptor was opened */
    char to[160];   /* rename, exchange: the other one */
};

struct port {
    enum port_call refuse;             /* which calls are counted for the refusal */
    unsigned refuse_at;                /* the how manieth of them is refused, from 1; 0 = none */
    bool refuse_on;                    /* and all calls after it too, as when the machine stops */
    int with;                          /* errno of the refusal */
    size_t write_max;                  /* bytes that one write takes; 0 = all */
    bool no_exchange;                  /* a file system that cannot exchange two names */
    unsigned calls;                    /* out: counted so far */
    unsigned log_count;                /* out */
    struct port_row log[PORT_LOG_MAX]; /* out */
};

extern struct port port;

/* From now on, with nothing refused; PORT_ANY with refuse_at 0 only counts. */
void port_begin(void);
void port_refuse(enum port_call call, unsigned at, bool on, int with);
void port_end(void); /* the real one again */

#endif
