/* Between the structs of the wire (proto/wire.h) and those of the core (core/message.h), both ways.
 *
 * Pure: no allocation, no I/O. Texts and masks are not copied, so a message that was translated is
 * valid as long as the one it came from; lists of members and identities are built in the caller's
 * scratch and valid until its next use.
 *
 *     struct adapt_scratch scratch;                              one per thread; large
 *     peer = { .host = "10.0.0.5", .secret = digest of the secret }
 *     adapt_to_core(&wire, &peer, &scratch, &message)            what a member said
 *     adapt_to_wire(&message, &scratch, &wire)                   what the core answers
 *
 * Both return false for a type that does not go that way. The daemon and the simulator run this
 * same code. */
#ifndef SERVER_ADAPT_H
#define SERVER_ADAPT_H

#include "core/message.h"
#include "proto/wire.h"

#include <stdbool.h>

#define ADAPT_ADDRESS_BYTES (WIRE_NAME_BYTES + 1u)

/* What the shell knows of the end that sent a HELLO. */
struct adapt_peer {
    const char *host;       /* numeric address that the connection comes from */
    struct core_id secret;  /* digest of HELLO's secret, in its place */
};

struct adapt_scratch {
    struct core_roster_member to_core[WIRE_MEMBERS_MAX];
    struct wire_member to_wire[WIRE_MEMBERS_MAX];
    wire_id ids[WIRE_MEMBERS_MAX];
    char address[ADAPT_ADDRESS_BYTES]; /* HELLO's ":PORT" with the peer's host before it */
};

/* peer is read for HELLO only, and may be NULL for everything else. */
bool adapt_to_core(const struct wire_message *from, const struct adapt_peer *peer,
                   struct adapt_scratch *scratch, struct core_message *to);

bool adapt_to_wire(const struct core_message *from, struct adapt_scratch *scratch,
                   struct wire_message *to);

#endif
