/* The coordinator's memory: one record per job in an SQLite file, behind the core's STORE action.
 *
 * Calling sequence
 *
 *     store_open(&store, loop, folder, on_stored, owner, error...)   takes the exclusive lock
 *     store_load(store, on_record, owner, error...)                   at start, before anything
 *                                                                    else
 *     store_put(store, lsn, job, record, bytes)                       any number may be under way
 *         -> stored_cb(owner, lsn, NULL) in the order of the calls, or with a sentence when it
 *         failed
 *     store_close(store)                                              writes what is under way
 *                                                                    first
 *
 * SQLite runs on a thread of its own, so that a slow disk never delays the loop. WAL with
 * synchronous=FULL: a record is durable when stored_cb says so. The lock is SQLite's exclusive mode
 * plus a lock on FOLDER/lock, so that a second coordinator is refused with a sentence that names
 * the first. */
#ifndef SERVER_STORE_H
#define SERVER_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct store;

typedef void (*store_stored_cb)(void *owner, uint64_t lsn, const char *error);
typedef void (*store_record_cb)(void *owner, const char *job, const uint8_t *record, size_t bytes);

/* X(name, sentence): what store_open and store_load return. */
#define STORE_ERRORS(X)                                                                            \
    X(STORE_OK, "no error")                                                                        \
    X(STORE_ERROR_FOLDER, "the state folder cannot be made or used")                               \
    X(STORE_ERROR_LOCKED, "another coordinator uses this state folder")                            \
    X(STORE_ERROR_FOREIGN, "the state file is not Muster's")                                       \
    X(STORE_ERROR_DAMAGED, "the state file is damaged")                                            \
    X(STORE_ERROR_DISK, "the disk refused")                                                        \
    X(STORE_ERROR_MEMORY, "out of memory")

enum store_error {
#define STORE_ERROR_ENUM(name, sentence) name,
    STORE_ERRORS(STORE_ERROR_ENUM)
#undef STORE_ERROR_ENUM
};

/* error: the sentence, with the file and what SQLite or the system said. */
enum store_error store_open(struct store **store, uv_loop_t *loop, const char *folder,
                            store_stored_cb stored_cb, void *owner, char *error,
                            size_t error_bytes);
enum store_error store_load(struct store *store, store_record_cb record_cb, void *owner,
                            char *error, size_t error_bytes);
void store_put(struct store *store, uint64_t lsn, const char *job, const uint8_t *record,
               size_t bytes);

/* Writes what is under way, without callbacks, then lets go of everything. The loop must run once
 * more. Accepts NULL. */
void store_close(struct store *store);

const char *store_version(void); /* SQLite's */

#endif
