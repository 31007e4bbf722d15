/* Invariants
 *   1. The database is touched by store_open and store_load before the thread runs, then by the
 *      thread alone.
 *   2. Puts are written in the order of the calls and answered in that order; several that wait are
 *      one transaction (group commit), which fails or succeeds for all of them.
 *   3. A failed transaction leaves the file as it was; the core tries again with a later put. */
#include "server/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPLICATION_ID 0x4d535452 /* "MSTR" in SQLite's header: a foreign file is told apart */
#define USER_VERSION   1
#define PATH_BYTES     4096
#define TEXT_BYTES     256

struct put {
    struct put *next;
    uint64_t lsn;
    char *job;
    size_t bytes;
    bool failed;
    uint8_t record[];
};

struct puts {
    struct put *first;
    struct put **last;
};

struct store {
    uv_async_t async;
    uv_thread_t thread;
    uv_mutex_t lock;
    uv_cond_t wake;
    sqlite3 *database;
    sqlite3_stmt *upsert;
    int lock_file;          /* descriptor of FOLDER/lock, -1 = none */
    store_stored_cb stored_cb;
    void *owner;
    struct puts waiting;    /* under lock */
    struct puts ended;      /* under lock */
    char failure[TEXT_BYTES]; /* under lock: of the newest failed transaction */
    char path[PATH_BYTES];  /* of the database */
    bool thread_runs;
    bool stopping;          /* under lock */
};

static void puts_init(struct puts *puts)
{
    puts->first = NULL;
    puts->last = &puts->first;
}

static void puts_append(struct puts *puts, struct put *list)
{
    *puts->last = list;
    while (*puts->last != NULL)
        puts->last = &(*puts->last)->next;
}

static void puts_free(struct put *put)
{
    while (put != NULL) {
        struct put *next = put->next;

        free(put->job);
        free(put);
        put = next;
    }
}

/* ---- the thread ----------------------------------------------------------------------------- */

static int run(sqlite3 *database, const char *sql)
{
    return sqlite3_exec(database, sql, NULL, NULL, NULL);
}

static int write_one(struct store *store, const struct put *put)
{
    int status;

    sqlite3_reset(store->upsert);
    sqlite3_bind_text(store->upsert, 1, put->job, -1, SQLITE_STATIC);
    sqlite3_bind_int64(store->upsert, 2, (sqlite3_int64)put->lsn);
    sqlite3_bind_blob64(store->upsert, 3, put->record, put->bytes, SQLITE_STATIC);
    status = sqlite3_step(store->upsert);
    sqlite3_reset(store->upsert);
    return status == SQLITE_DONE ? SQLITE_OK : status;
}

/* One transaction for all; on failure every one of them has failed. */
static void write_all(struct store *store, struct put *list, char *failure, size_t failure_bytes)
{
    int status = run(store->database, "BEGIN IMMEDIATE");

    for (struct put *put = list; put != NULL && status == SQLITE_OK; put = put->next)
        status = write_one(store, put);
    if (status == SQLITE_OK)
        status = run(store->database, "COMMIT");
    if (status == SQLITE_OK)
        return;
    (void)snprintf(failure, failure_bytes, "%s: %s", store->path,
                   sqlite3_errmsg(store->database));
    (void)run(store->database, "ROLLBACK");
    for (struct put *put = list; put != NULL; put = put->next)
        put->failed = true;
}

static void thread_main(void *argument)
{
    struct store *store = argument;
    char failure[TEXT_BYTES] = "";

    (void)pthread_setname_np(pthread_self(), "muster-store");
    uv_mutex_lock(&store->lock);
    for (;;) {
        struct put *list = store->waiting.first;

        if (list == NULL && store->stopping)
            break;
        if (list == NULL) {
            uv_cond_wait(&store->wake, &store->lock);
            continue;
        }
        puts_init(&store->waiting);
        uv_mutex_unlock(&store->lock);
        write_all(store, list, failure, sizeof failure);
        uv_mutex_lock(&store->lock);
        memcpy(store->failure, failure, sizeof failure);
        puts_append(&store->ended, list);
        uv_async_send(&store->async);
    }
    uv_mutex_unlock(&store->lock);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void on_async(uv_async_t *async)
{
    struct store *store = async->data;
    char failure[TEXT_BYTES];
    struct put *list;

    uv_mutex_lock(&store->lock);
    list = store->ended.first;
    puts_init(&store->ended);
    memcpy(failure, store->failure, sizeof failure);
    uv_mutex_unlock(&store->lock);
    for (struct put *put = list; put != NULL; put = put->next)
        store->stored_cb(store->owner, put->lsn, put->failed ? failure : NULL);
    puts_free(list);
}

void store_put(struct store *store, uint64_t lsn, const char *job, const uint8_t *record,
               size_t bytes)
{
    struct put *put = malloc(sizeof *put + bytes);
    char *name = strdup(job);

    if (put == NULL || name == NULL) {
        free(put);
        free(name);
        store->stored_cb(store->owner, lsn, "out of memory");
        return;
    }
    put->next = NULL;
    put->lsn = lsn;
    put->job = name;
    put->bytes = bytes;
    put->failed = false;
    memcpy(put->record, record, bytes);
    uv_mutex_lock(&store->lock);
    puts_append(&store->waiting, put);
    uv_cond_signal(&store->wake);
    uv_mutex_unlock(&store->lock);
}

/* ---- opening -------------------------------------------------------------------------------- */

static enum store_error take_lock(struct store *store, const char *folder, char *error,
                                  size_t error_bytes)
{
    char path[PATH_BYTES], pid[32] = "";
    ssize_t length;

    (void)snprintf(path, sizeof path, "%s/lock", folder);
    store->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_file < 0) {
        (void)snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        return STORE_ERROR_FOLDER;
    }
    if (flock(store->lock_file, LOCK_EX | LOCK_NB) != 0) {
        length = pread(store->lock_file, pid, sizeof pid - 1, 0);
        pid[length > 0 ? length : 0] = '\0';
        (void)snprintf(
            error, error_bytes,
            "state folder %s is in use by another coordinator (pid %s); stop it, or give "
            "this one another --state",
            folder, pid[0] != '\0' ? pid : "unknown");
        return STORE_ERROR_LOCKED;
    }
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (ftruncate(store->lock_file, 0) != 0 ||
        pwrite(store->lock_file, pid, strlen(pid), 0) < 0) {
        (void)snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        return STORE_ERROR_DISK;
    }
    return STORE_OK;
}

static int read_number(sqlite3 *database, const char *sql, int *number)
{
    sqlite3_stmt *statement = NULL;
    int status = sqlite3_prepare_v2(database, sql, -1, &statement, NULL);

    if (status == SQLITE_OK) {
        status = sqlite3_step(statement);
        if (status == SQLITE_ROW) {
            *number = sqlite3_column_int(statement, 0);
            status = SQLITE_OK;
        }
    }
    sqlite3_finalize(statement);
    return status;
}

static enum store_error translate(int status)
{
    switch (status & 0xff) {
    case SQLITE_OK:
        return STORE_OK;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return STORE_ERROR_DAMAGED;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return STORE_ERROR_LOCKED;
    case SQLITE_NOMEM:
        return STORE_ERROR_MEMORY;
    default:
        return STORE_ERROR_DISK;
    }
}

/* A new file gets our marks, also one whose first start was cut off between them; an old one must
 * carry both. */
static enum store_error check_marks(struct store *store, char *error, size_t error_bytes)
{
    int id = 0, version = 0, tables = 0;
    int status = read_number(store->database, "PRAGMA application_id", &id);

    if (status == SQLITE_OK)
        status = read_number(store->database, "PRAGMA user_version", &version);
    if (status == SQLITE_OK)
        status = read_number(store->database, "SELECT count(*) FROM sqlite_master", &tables);
    if (status != SQLITE_OK) {
        (void)snprintf(error, error_bytes, "%s: %s%s", store->path, sqlite3_errmsg(store->database),
                       translate(status) == STORE_ERROR_DAMAGED ? "; move it away to start anew"
                                                                : "");
        return translate(status);
    }
    if (version == 0 && tables == 0 && (id == 0 || id == APPLICATION_ID))
        return STORE_OK;
    if (id != APPLICATION_ID) {
        (void)snprintf(error, error_bytes, "%s is an SQLite file, but not Muster's; give --state "
                                           "a folder of its own", store->path);
        return STORE_ERROR_FOREIGN;
    }
    if (version != USER_VERSION) {
        (void)snprintf(error, error_bytes, "%s has state version %d, this program reads %d",
                       store->path, version, USER_VERSION);
        return STORE_ERROR_FOREIGN;
    }
    return STORE_OK;
}

static enum store_error open_database(struct store *store, char *error, size_t error_bytes)
{
    char marks[128];
    enum store_error result;
    int status = sqlite3_open_v2(store->path, &store->database,
                                 SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                                 NULL);

    if (status == SQLITE_OK)
        status = run(store->database, "PRAGMA locking_mode=EXCLUSIVE");
    if (status == SQLITE_OK) {
        result = check_marks(store, error, error_bytes);
        if (result != STORE_OK)
            return result;
        (void)snprintf(marks, sizeof marks, "PRAGMA application_id=%d; PRAGMA user_version=%d",
                       APPLICATION_ID, USER_VERSION);
        status = run(store->database, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
    }
    if (status == SQLITE_OK)
        status = run(store->database, marks);
    if (status == SQLITE_OK)
        status = run(store->database, "CREATE TABLE IF NOT EXISTS job(name TEXT PRIMARY KEY, "
                                      "lsn INTEGER NOT NULL, record BLOB NOT NULL) STRICT");
    if (status == SQLITE_OK)
        status = sqlite3_prepare_v3(store->database,
                                    "INSERT INTO job(name, lsn, record) VALUES(?1, ?2, ?3) "
                                    "ON CONFLICT(name) DO UPDATE SET lsn=?2, record=?3",
                                    -1, SQLITE_PREPARE_PERSISTENT, &store->upsert, NULL);
    if (status != SQLITE_OK)
        (void)snprintf(error, error_bytes, "%s: %s", store->path,
                       sqlite3_errmsg(store->database));
    return translate(status);
}

static void release(struct store *store)
{
    sqlite3_finalize(store->upsert);
    sqlite3_close(store->database);
    if (store->lock_file >= 0)
        close(store->lock_file);
    free(store);
}

static enum store_error make_folder(const char *folder, char *error, size_t error_bytes)
{
    struct stat info;

    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        (void)snprintf(error, error_bytes, "state folder %s cannot be made: %s", folder,
                       strerror(errno));
        return STORE_ERROR_FOLDER;
    }
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) {
        (void)snprintf(error, error_bytes, "--state %s is not a folder", folder);
        return STORE_ERROR_FOLDER;
    }
    return STORE_OK;
}

enum store_error store_open(struct store **out, uv_loop_t *loop, const char *folder,
                            store_stored_cb stored_cb, void *owner, char *error,
                            size_t error_bytes)
{
    struct store *store = calloc(1, sizeof *store);
    enum store_error result = STORE_ERROR_MEMORY;

    *out = NULL;
    if (store == NULL) {
        (void)snprintf(error, error_bytes, "out of memory");
        return result;
    }
    store->lock_file = -1;
    store->stored_cb = stored_cb;
    store->owner = owner;
    puts_init(&store->waiting);
    puts_init(&store->ended);
    (void)snprintf(store->path, sizeof store->path, "%s/muster.sqlite", folder);
    result = make_folder(folder, error, error_bytes);
    if (result == STORE_OK)
        result = take_lock(store, folder, error, error_bytes);
    if (result == STORE_OK)
        result = open_database(store, error, error_bytes);
    if (result != STORE_OK) {
        release(store);
        return result;
    }
    uv_mutex_init(&store->lock);
    uv_cond_init(&store->wake);
    uv_async_init(loop, &store->async, on_async);
    store->async.data = store;
    *out = store;
    return STORE_OK;
}

enum store_error store_load(struct store *store, store_record_cb record_cb, void *owner,
                            char *error, size_t error_bytes)
{
    sqlite3_stmt *rows = NULL;
    int status = sqlite3_prepare_v2(store->database, "SELECT name, record FROM job ORDER BY lsn",
                                    -1, &rows, NULL);

    while (status == SQLITE_OK) {
        int step = sqlite3_step(rows);

        if (step != SQLITE_ROW) {
            status = step;
            break;
        }
        record_cb(owner, (const char *)sqlite3_column_text(rows, 0), sqlite3_column_blob(rows, 1),
                  (size_t)sqlite3_column_bytes(rows, 1));
    }
    sqlite3_finalize(rows);
    if (status != SQLITE_DONE) {
        (void)snprintf(error, error_bytes, "%s: %s", store->path,
                       sqlite3_errmsg(store->database));
        return translate(status);
    }
    if (uv_thread_create(&store->thread, thread_main, store) != 0) {
        (void)snprintf(error, error_bytes, "no thread for the state store");
        return STORE_ERROR_MEMORY;
    }
    store->thread_runs = true;
    return STORE_OK;
}

static void on_closed(uv_handle_t *handle)
{
    struct store *store = handle->data;

    puts_free(store->ended.first);
    uv_cond_destroy(&store->wake);
    uv_mutex_destroy(&store->lock);
    release(store);
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    if (store->thread_runs) {
        uv_mutex_lock(&store->lock);
        store->stopping = true;
        uv_cond_signal(&store->wake);
        uv_mutex_unlock(&store->lock);
        uv_thread_join(&store->thread);
    }
    uv_close((uv_handle_t *)&store->async, on_closed);
}

const char *store_version(void)
{
    return sqlite3_libversion();
}
