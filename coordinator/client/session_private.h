/* What the three files of the session share: session.c (connection and time), session_told.c
 * (messages from the coordinator), session_said.c (what the program says). */
#ifndef CLIENT_SESSION_PRIVATE_H
#define CLIENT_SESSION_PRIVATE_H

#include "client/session.h"

/* session.c */

/* The next free action. */
struct session_action *session_push(struct session_actions *actions, enum session_action_type type);

/* A message to send, its header at this position; the caller fills in the rest. */
struct wire_message *session_send(struct session_actions *actions, enum frame_type type,
                                  const struct session_position *at);

void session_deliver(struct session_actions *actions, enum session_news news,
                     const struct wire_message *message);

void session_beat(struct session *session, struct session_actions *actions);

/* The session is over: closes what is open and delivers ENDED. session->text is the text. */
void session_finish(struct session *session, enum session_end end, uint32_t exit_code,
                    struct session_actions *actions);

/* The connection is of no use any more: closes it, tells DOWN if it was attached, rests. */
void session_drop(struct session *session, const char *why, struct session_actions *actions);

/* Text that ends within its room; NULL counts as "". */
void session_copy_text(char *to, size_t room_bytes, const char *from);

/* session_told.c: a message from the coordinator. */
void session_told(struct session *session, const struct wire_message *message,
                  struct session_actions *actions);

/* What was told of the generation that is held, with its roster; NULL when it is not known. */
const struct wire_message *session_roster_held(const struct session *session);

/* session_said.c: an event from the program; false when it makes no sense now. */
bool session_say(struct session *session, const struct session_event *event,
                 struct session_actions *actions);

/* After WELCOME: everything that still stands. */
void session_say_again(struct session *session, struct session_actions *actions);

/* Things that do not stand any more. */
void session_forget_generation(struct session_said *said);

#endif
