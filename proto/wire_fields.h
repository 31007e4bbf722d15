/* The fields of every message, once: X(kind, name), in the order of messages.proto.
 *
 * Decode, encode and deep copy are expansions of these lists (wire.c, wire_copy.c). The names are
 * those of messages.proto and of the structs in wire.h. Kinds:
 *   PLAIN          a number or truth value
 *   ENUMERATION    1 .. the largest value; the lint checked the upper end, 0 is refused
 *   IDENTITY       16 bytes, not all zeros
 *   UID            16 bytes, or none
 *   NAME           text that is refused when it breaks a rule
 *   SPEECH         text for people, mended when it breaks a rule (LINT_TEXT; cut at the cap given)
 *   MASK           owned shards: pointer `name` and `name_bytes`
 *   ROSTER         members: pointer and count, named apart
 *   IDENTITIES     identities: pointer and count, named apart
 */
#ifndef PROTO_WIRE_FIELDS_H
#define PROTO_WIRE_FIELDS_H

#define WIRE_MEMBER_FIELDS(X)                                                                      \
    X(IDENTITY, id)                                                                                \
    X(PLAIN, rank)                                                                                 \
    X(PLAIN, local_rank)                                                                           \
    X(NAME, node)                                                                                  \
    X(SPEECH_64, host)                                                                             \
    X(PLAIN, pid)                                                                                  \
    X(NAME, data_address)                                                                          \
    X(PLAIN, applied)                                                                              \
    X(MASK, owned)                                                                                 \
    X(PLAIN, frozen)                                                                               \
    X(PLAIN, weight)

#define WIRE_HELLO_FIELDS(X)                                                                       \
    X(PLAIN, version_min)                                                                          \
    X(PLAIN, version_max)                                                                          \
    X(NAME, job)                                                                                   \
    X(IDENTITY, member_id)                                                                         \
    X(IDENTITY, secret)                                                                            \
    X(ENUMERATION, kind)                                                                           \
    X(ENUMERATION, attach)                                                                         \
    X(NAME, node)                                                                                  \
    X(SPEECH_64, host)                                                                             \
    X(PLAIN, pid)                                                                                  \
    X(NAME, data_address)                                                                          \
    X(PLAIN, min)                                                                                  \
    X(PLAIN, max)                                                                                  \
    X(NAME, spec)                                                                                  \
    X(NAME, fingerprint)                                                                           \
    X(UID, job_uid)                                                                                \
    X(PLAIN, rank_hint)                                                                            \
    X(PLAIN, group_size)                                                                           \
    X(ROSTER, roster)                                                                              \
    X(SPEECH_64, program)                                                                          \
    X(PLAIN, plan)                                                                                 \
    X(PLAIN, applied)                                                                              \
    X(PLAIN, passed)                                                                               \
    X(NAME, passed_name)

#define WIRE_BEAT_FIELDS(X)                                                                        \
    X(PLAIN, seq)                                                                                  \
    X(ENUMERATION, phase)                                                                          \
    X(PLAIN, phase_age_ms)                                                                         \
    X(PLAIN, loss)                                                                                 \
    X(PLAIN, samples_per_s)                                                                        \
    X(PLAIN, entered)                                                                              \
    X(PLAIN, left)                                                                                 \
    X(SPEECH_64, name)                                                                             \
    X(PLAIN, lag_ms)                                                                               \
    X(SPEECH_32, op)                                                                               \
    X(SPEECH_16, dtype)                                                                            \
    X(PLAIN, count)                                                                                \
    X(SPEECH_128, place)                                                                           \
    X(PLAIN, at)                                                                                   \
    X(PLAIN, at_age_ms)                                                                            \
    X(SPEECH_256, where)                                                                           \
    X(PLAIN, open)                                                                                 \
    X(PLAIN, batch)\
    X(PLAIN, shard_us)                                                                             \
    X(PLAIN, shards)

#define WIRE_REPORT_FIELDS(X)                                                                      \
    X(PLAIN, plan)                                                                                 \
    X(PLAIN, has_reduced)                                                                          \
    X(MASK, owned)                                                                                 \
    X(PLAIN, entered)

#define WIRE_ENTERED_FIELDS(X) X(PLAIN, connect_us) X(PLAIN, state_us) X(PLAIN, recompute_us)

#define WIRE_READY_FIELDS(X) X(PLAIN, params_hash)

#define WIRE_PEER_LOST_FIELDS(X) X(IDENTITY, member_id) X(ENUMERATION, why) X(SPEECH_256, text)

#define WIRE_LEAVE_FIELDS(X) X(PLAIN, drain_ms)

#define WIRE_GOODBYE_FIELDS(X) X(PLAIN, exit_code) X(SPEECH_256, text)

#define WIRE_FINISHED_FIELDS(X) X(PLAIN, params_hash) X(PLAIN, test_accuracy)

#define WIRE_BARRIER_ENTER_FIELDS(X)                                                               \
    X(NAME, name)                                                                                  \
    X(PLAIN, seq)                                                                                  \
    X(SPEECH_128, place)                                                                           \
    X(PLAIN, number)

#define WIRE_WELCOME_FIELDS(X)                                                                     \
    X(PLAIN, version)                                                                              \
    X(IDENTITY, job_uid)                                                                           \
    X(PLAIN, beat_ms)                                                                              \
    X(PLAIN, lease_ms)                                                                             \
    X(PLAIN, min)                                                                                  \
    X(PLAIN, max)                                                                                  \
    X(SPEECH_256, note)                                                                            \
    X(PLAIN, attached)

#define WIRE_REFUSED_FIELDS(X) X(ENUMERATION, why) X(PLAIN, exit_code) X(SPEECH_512, text)

#define WIRE_WAITING_FIELDS(X)                                                                     \
    X(PLAIN, have)                                                                                 \
    X(PLAIN, min)                                                                                  \
    X(PLAIN, max)                                                                                  \
    X(PLAIN, since_ms)                                                                             \
    X(SPEECH_512, text)                                                                            \
    X(PLAIN, paused)

#define WIRE_GENERATION_FIELDS(X)                                                                  \
    X(ENUMERATION, mode)                                                                           \
    X(IDENTITY, key)                                                                               \
    X(ROSTER, members)                                                                             \
    X(SPEECH_256, reason)                                                                          \
    X(PLAIN, pause)                                                                                \
    X(PLAIN, detect_us)                                                                            \
    X(PLAIN, push_us)                                                                              \
    X(PLAIN, rendezvous_us)

#define WIRE_OVER_FIELDS(X) X(IDENTITIES, lost) X(SPEECH_256, reason)

#define WIRE_RELEASED_FIELDS(X) X(SPEECH_256, reason)

#define WIRE_DRAIN_REQUEST_FIELDS(X) X(SPEECH_256, reason)

#define WIRE_DONE_FIELDS(X) X(PLAIN, params_hash) X(SPEECH_256, text)

#define WIRE_BARRIER_RESULT_FIELDS(X)                                                              \
    X(NAME, name)                                                                                  \
    X(PLAIN, seq)                                                                                  \
    X(ENUMERATION, end)                                                                            \
    X(SPEECH_512, text)

#define WIRE_BEAT_ACK_FIELDS(X) X(PLAIN, seq)

#define WIRE_VERDICT_FIELDS(X) X(ENUMERATION, kind) X(SPEECH_512, text)

/* X(frame type, our struct and union member, message of messages.proto as protobuf-c spells it) */
#define WIRE_MESSAGES(X)                                                                           \
    X(HELLO, hello, Hello)                                                                         \
    X(BEAT, beat, Beat)                                                                            \
    X(REPORT, report, Report)                                                                      \
    X(ENTERED, entered, Entered)                                                                   \
    X(READY, ready, Ready)                                                                         \
    X(PEER_LOST, peer_lost, PeerLost)                                                              \
    X(LEAVE, leave, Leave)                                                                         \
    X(GOODBYE, goodbye, Goodbye)                                                                   \
    X(FINISHED, finished, Finished)                                                                \
    X(BARRIER_ENTER, barrier_enter, BarrierEnter)                                                  \
    X(WELCOME, welcome, Welcome)                                                                   \
    X(REFUSED, refused, Refused)                                                                   \
    X(WAITING, waiting, Waiting)                                                                   \
    X(GENERATION, generation, Generation)                                                          \
    X(OVER, over, Over)                                                                            \
    X(RELEASED, released, Released)                                                                \
    X(DRAIN_REQUEST, drain_request, DrainRequest)                                                  \
    X(DONE, done, Done)                                                                            \
    X(BARRIER_RESULT, barrier_result, BarrierResult)                                               \
    X(BEAT_ACK, beat_ack, BeatAck)                                                                 \
    X(VERDICT, verdict, Verdict)

#endif
