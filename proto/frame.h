/* The frame: a fixed header of 36 bytes, then a body of one protobuf message.
 *
 *   offset  bytes  field       (all integers little endian)
 *        0      4  magic       'M' 'S' 'T' 'R'
 *        4      1  version     protocol version; HELLO and the answer to it are always version 1
 *        5      1  type        enum frame_type
 *        6      2  flags       FRAME_FLAG_*; unknown bits are an error
 *        8      4  body_bytes  length of the body, checked against the limit of state and type
 *       12      8  generation  number of the generation that the message speaks of, 0 = none
 *       20      8  nonce       its nonce
 *       28      8  step        updates applied
 *
 * Calling sequence of a reader (no function here allocates, blocks or keeps a pointer to the
 * input):
 *
 *   frame_parser_init(&parser, FRAME_STATE_STRANGER);
 *   on bytes from the socket:
 *     for (;;) {
 *         switch (frame_parser_feed(&parser, &bytes, &length)) {
 *         case FRAME_NEED_HEADER:                            the input is used up, wait for more
 *         case FRAME_NEED_BODY:   return;
 *         case FRAME_NEED_MEMORY:                            a body came only in part:
 *             frame_parser_give(&parser, malloc(parser.header.body_bytes));   keep it there
 *             break;
 *         case FRAME_WHOLE:                                  parser.header, parser.body
 *             handle(&parser.header, parser.body);
 *             free(frame_parser_take(&parser));              NULL when the body lay in the input
 *             break;
 *         case FRAME_BROKEN:      close; frame_error_text(parser.error) says why
 *         }
 *     }
 *   at the end of the connection: free(frame_parser_take(&parser));
 *
 * So a connection costs memory only while a frame is cut in two, and never more than the limit of
 * the type it announced. A body that lies whole in the input is not copied.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER_BYTES 36u
#define FRAME_VERSION_MIN  1u /* oldest protocol version this code speaks */
#define FRAME_VERSION_MAX  1u /* newest */

/* A HELLO that carries a roster says so here: only then its larger limit holds. */
#define FRAME_FLAG_ROSTER 0x0001u

/* Limits of a body in bytes. Tests compare them with the largest body that the lint passes. */
#define FRAME_SMALL_BYTES    8192u   /* everything that is not named below */
#define FRAME_OVER_BYTES     32768u  /* OVER: 1,024 identities */
#define FRAME_ROSTER_BYTES   524288u /* GENERATION, HELLO with a roster: 1,024 members */
#define FRAME_BODY_MAX_BYTES FRAME_ROSTER_BYTES

/* X(name, number, sender, limit of the body in bytes). Numbers are never reused. */
#define FRAME_TYPES(X)                                                                             \
    X(HELLO, 1, MEMBER, FRAME_SMALL_BYTES)                                                         \
    X(BEAT, 2, MEMBER, FRAME_SMALL_BYTES)                                                          \
    X(REPORT, 3, MEMBER, FRAME_SMALL_BYTES)                                                        \
    X(ENTERED, 4, MEMBER, FRAME_SMALL_BYTES)                                                       \
    X(READY, 5, MEMBER, FRAME_SMALL_BYTES)                                                         \
    X(PEER_LOST, 6, MEMBER, FRAME_SMALL_BYTES)                                                     \
    X(LEAVE, 7, MEMBER, FRAME_SMALL_BYTES)                                                         \
    X(GOODBYE, 8, MEMBER, FRAME_SMALL_BYTES)                                                       \
    X(FINISHED, 9, MEMBER, FRAME_SMALL_BYTES)                                                      \
    X(BARRIER_ENTER, 10, MEMBER, FRAME_SMALL_BYTES)                                                \
    X(WELCOME, 64, COORDINATOR, FRAME_SMALL_BYTES)                                                 \
    X(REFUSED, 65, COORDINATOR, FRAME_SMALL_BYTES)                                                 \
    X(WAITING, 66, COORDINATOR, FRAME_SMALL_BYTES)                                                 \
    X(GENERATION, 67, COORDINATOR, FRAME_ROSTER_BYTES)                                             \
    X(OVER, 68, COORDINATOR, FRAME_OVER_BYTES)                                                     \
    X(RELEASED, 69, COORDINATOR, FRAME_SMALL_BYTES)                                                \
    X(DRAIN_REQUEST, 70, COORDINATOR, FRAME_SMALL_BYTES)                                           \
    X(DONE, 71, COORDINATOR, FRAME_SMALL_BYTES)                                                    \
    X(BARRIER_RESULT, 72, COORDINATOR, FRAME_SMALL_BYTES)                                          \
    X(BEAT_ACK, 73, COORDINATOR, FRAME_SMALL_BYTES)                                                \
    X(VERDICT, 74, COORDINATOR, FRAME_SMALL_BYTES)

enum frame_type {
#define FRAME_TYPE_ENUM(name, number, sender, limit) FRAME_##name = (number),
    FRAME_TYPES(FRAME_TYPE_ENUM)
#undef FRAME_TYPE_ENUM
};

/* Who is at the other end, and therefore what it may send. */
enum frame_state {
    FRAME_STATE_STRANGER,    /* a connection that was not admitted yet: HELLO only */
    FRAME_STATE_MEMBER,      /* an admitted member: everything a member sends but HELLO */
    FRAME_STATE_COORDINATOR, /* the coordinator, read by a member */
};

/* X(name, sentence): why a frame is refused. */
#define FRAME_ERRORS(X)                                                                            \
    X(FRAME_OK, "no error")                                                                        \
    X(FRAME_ERROR_MAGIC, "this is not Muster's protocol (wrong magic)")                            \
    X(FRAME_ERROR_VERSION, "a frame of a protocol version that is not spoken here")                \
    X(FRAME_ERROR_TYPE, "a frame of an unknown type")                                              \
    X(FRAME_ERROR_STATE, "a frame that may not be sent at this point of the conversation")         \
    X(FRAME_ERROR_FLAGS, "a frame with unknown flags")                                             \
    X(FRAME_ERROR_LENGTH, "a frame that is longer than its type allows")

enum frame_error {
#define FRAME_ERROR_ENUM(name, sentence) name,
    FRAME_ERRORS(FRAME_ERROR_ENUM)
#undef FRAME_ERROR_ENUM
};

struct frame_header {
    uint8_t version;     /* protocol version of this frame */
    uint8_t type;        /* enum frame_type */
    uint16_t flags;      /* FRAME_FLAG_* */
    uint32_t body_bytes; /* length of the body that follows */
    uint64_t generation; /* number, 0 = none */
    uint64_t nonce;      /* nonce of that generation */
    uint64_t step;       /* updates applied */
};

/* What a parser waits for, or has. */
enum frame_need {
    FRAME_NEED_HEADER, /* input used up, the header is not complete */
    FRAME_NEED_BODY,   /* input used up, the body is not complete */
    FRAME_NEED_MEMORY, /* call frame_parser_give(), then feed the rest of the input */
    FRAME_WHOLE,       /* header and body are there until the next feed or take */
    FRAME_BROKEN,      /* refused; nothing after it can be understood */
};

struct frame_parser {
    enum frame_state state;          /* who is at the other end; frame_parser_admit() changes it */
    enum frame_need need;            /* what the last feed returned */
    enum frame_error error;          /* set with FRAME_BROKEN */
    uint8_t raw[FRAME_HEADER_BYTES]; /* header bytes seen so far */
    size_t have_bytes;               /* bytes of the header, then of the body, seen so far */
    struct frame_header header;      /* valid from FRAME_NEED_MEMORY on */
    uint8_t *memory;                 /* given by the caller for a body in parts, else NULL */
    const uint8_t *body;             /* with FRAME_WHOLE: the body, in memory or in the input */
};

/* Largest body in bytes that this state may send of this type; FRAME_OK, or why it may send none.
 */
enum frame_error frame_limit(enum frame_state state, uint8_t type, uint16_t flags,
                             uint32_t *limit_bytes);

/* Writes the header's bytes. The magic is added. */
void frame_header_encode(const struct frame_header *header, uint8_t out[FRAME_HEADER_BYTES]);

/* Reads and judges a header; on an error *header is untouched. */
enum frame_error frame_header_decode(enum frame_state state, const uint8_t in[FRAME_HEADER_BYTES],
                                     struct frame_header *header);

void frame_parser_init(struct frame_parser *parser, enum frame_state state);

/* The stranger became a member; call it between two frames. */
void frame_parser_admit(struct frame_parser *parser);

/* Takes bytes from the front of the input (moves *bytes, shrinks *length) up to the end of one
 * frame. */
enum frame_need frame_parser_feed(struct frame_parser *parser, const uint8_t **bytes,
                                  size_t *length);

/* Lends memory of header.body_bytes bytes for the body, not NULL (without memory: close). The
 * parser holds it until it is taken back. */
void frame_parser_give(struct frame_parser *parser, uint8_t *memory);

/* Gives back what was lent, or NULL. After it the parser is ready for the next frame. */
uint8_t *frame_parser_take(struct frame_parser *parser);

const char *frame_error_text(enum frame_error error); /* the sentence */
const char *frame_type_name(uint8_t type);            /* "HELLO"; "?" when unknown */

#endif
