/* The coordinator's memory: what was said to be stored is there again, in order; a second
 * coordinator, a foreign, damaged or torn file and a full disk each have their error and sentence.
 */
#include "server/store.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#define RECORDS_MAX 64
#define FOLDER      64
#define NOBODY      65534
#define FLIPS       200
#define SEED        20261124u

struct record {
    char job[32];        /* its name */
    uint8_t bytes[1024]; /* its content, as far as it fits */
    size_t length;       /* of all of it */
};

struct rig {
    uv_loop_t loop;
    struct store *store;
    char folder[FOLDER];
    uint64_t stored[4096];              /* lsns in the order of the answers */
    unsigned stored_count;              /* of stored */
    unsigned failed_count;              /* answers with a sentence */
    char failure[512];                  /* the newest one */
    struct record records[RECORDS_MAX]; /* as loaded */
    unsigned record_count;              /* of records */
    char error[512];                    /* of opening or loading */
};

/* SQLite's calls come here: counted, and carried out. */
static unsigned syncs;

__attribute__((visibility("default"))) int fsync(int file)
{
    __atomic_add_fetch(&syncs, 1, __ATOMIC_RELAXED);
    return (int)syscall(SYS_fsync, file);
}

__attribute__((visibility("default"))) int fdatasync(int file)
{
    __atomic_add_fetch(&syncs, 1, __ATOMIC_RELAXED);
    return (int)syscall(SYS_fdatasync, file);
}

static void on_stored(void *owner, uint64_t lsn, const char *error)
{
    struct rig *rig = owner;

    assert_true(rig->stored_count < 4096);
    rig->stored[rig->stored_count++] = lsn;
    if (error != NULL) {
        rig->failed_count++;
        (void)snprintf(rig->failure, sizeof rig->failure, "%s", error);
    }
}

static void on_record(void *owner, const char *job, const uint8_t *bytes, size_t length)
{
    struct rig *rig = owner;
    struct record *record = &rig->records[rig->record_count++];

    assert_true(rig->record_count < RECORDS_MAX);
    (void)snprintf(record->job, sizeof record->job, "%s", job);
    record->length = length;
    if (length > 0)
        memcpy(record->bytes, bytes, length < sizeof record->bytes ? length : sizeof record->bytes);
}

static struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof *rig);

    assert_non_null(rig);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    (void)snprintf(rig->folder, sizeof rig->folder, "/tmp/muster-store-XXXXXX");
    assert_non_null(mkdtemp(rig->folder));
    return rig;
}

static enum store_error open_in(struct rig *rig, const char *folder)
{
    rig->error[0] = '\0';
    return store_open(&rig->store, &rig->loop, folder, on_stored, rig, rig->error,
                      sizeof rig->error);
}

static enum store_error open_and_load(struct rig *rig)
{
    enum store_error result = open_in(rig, rig->folder);

    rig->record_count = 0;
    if (result == STORE_OK)
        result = store_load(rig->store, on_record, rig, rig->error, sizeof rig->error);
    return result;
}

static void start(struct rig *rig)
{
    if (open_and_load(rig) != STORE_OK)
        fail_msg("%s", rig->error);
}

static void stop(struct rig *rig)
{
    store_close(rig->store);
    rig->store = NULL;
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
}

static void rig_free(struct rig *rig)
{
    char command[128];

    stop(rig);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", rig->folder);
    assert_int_equal(system(command), 0);
    free(rig);
}

static void wait_for(struct rig *rig, unsigned count)
{
    while (rig->stored_count < count)
        (void)uv_run(&rig->loop, UV_RUN_ONCE);
}

static void put_text(struct rig *rig, uint64_t lsn, const char *job, const char *text)
{
    store_put(rig->store, lsn, job, (const uint8_t *)text, strlen(text));
}

static void expect_record(const struct rig *rig, unsigned i, const char *job, const char *text)
{
    const struct record *record = &rig->records[i];

    if (i >= rig->record_count || strcmp(record->job, job) != 0 || record->length != strlen(text) ||
        memcmp(record->bytes, text, record->length) != 0)
        fail_msg("record %u of %u: %s '%.*s', expected %s '%s'", i, rig->record_count, record->job,
                 (int)record->length, (const char *)record->bytes, job, text);
}

static void expect_error(const struct rig *rig, enum store_error got, enum store_error wanted,
                         const char *words)
{
    if (got != wanted || strstr(rig->error, words) == NULL)
        fail_msg("error %d, '%s' was said where %d and '%s' were expected", got, rig->error, wanted,
                 words);
    assert_null(rig->store);
}

static void path_in(const struct rig *rig, const char *name, char path[128])
{
    (void)snprintf(path, 128, "%s/%s", rig->folder, name);
}

static void shell(const char *format, const char *folder)
{
    char command[512];

    (void)snprintf(command, sizeof command, "cd '%s' && %s", folder, format);
    assert_int_equal(system(command), 0);
}

/* ---- kept ----------------------------------------------------------------------------------- */

static void what_was_stored_is_there_again(void **state)
{
    struct rig *rig = rig_new();
    uint8_t *large = calloc(1, 1 << 20);

    (void)state;
    assert_non_null(large);
    memset(large, 7, 1 << 20);
    start(rig);
    assert_int_equal(rig->record_count, 0);
    put_text(rig, 1, "b", "old");
    put_text(rig, 2, "a", "A");
    put_text(rig, 3, "b", "new");
    put_text(rig, 4, "", "");
    put_text(rig, 5, "d\xc3\xa9j\xc3\xa0 'vu'; --", "B");
    store_put(rig->store, 6, "large", large, 1 << 20);
    wait_for(rig, 6);
    assert_int_equal(rig->failed_count, 0);
    stop(rig);
    start(rig);
    assert_int_equal(rig->record_count, 5);
    expect_record(rig, 0, "a", "A");
    expect_record(rig, 1, "b", "new");
    expect_record(rig, 2, "", "");
    expect_record(rig, 3, "d\xc3\xa9j\xc3\xa0 'vu'; --", "B");
    assert_int_equal(rig->records[4].length, 1 << 20);
    assert_memory_equal(rig->records[4].bytes, large, sizeof rig->records[4].bytes);
    free(large);
    rig_free(rig);
}

static void nothing_is_answered_before_it_is_synced(void **state)
{
    struct rig *rig = rig_new();

    (void)state;
    start(rig);
    for (uint64_t lsn = 1; lsn <= 20; lsn++) {
        unsigned before = __atomic_load_n(&syncs, __ATOMIC_RELAXED);

        put_text(rig, lsn, "a", "x");
        wait_for(rig, (unsigned)lsn);
        if (__atomic_load_n(&syncs, __ATOMIC_RELAXED) == before)
            fail_msg("put %llu was answered without a sync", (unsigned long long)lsn);
    }
    rig_free(rig);
}

static void answers_come_in_the_order_of_the_puts(void **state)
{
    struct rig *rig = rig_new();

    (void)state;
    start(rig);
    for (uint64_t lsn = 1; lsn <= 2000; lsn++) {
        put_text(rig, lsn, lsn % 3 ? "a" : "b", "x");
        if (lsn % 100 == 0)
            (void)uv_run(&rig->loop, UV_RUN_NOWAIT);
    }
    wait_for(rig, 2000);
    for (unsigned i = 0; i < 2000; i++)
        assert_int_equal(rig->stored[i], i + 1);
    rig_free(rig);
}

static void closing_writes_what_is_under_way_without_a_word(void **state)
{
    struct rig *rig = rig_new();
    char text[16];

    (void)state;
    start(rig);
    for (uint64_t lsn = 1; lsn <= 50; lsn++) {
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)lsn);
        put_text(rig, lsn, "a", text);
    }
    stop(rig);
    assert_int_equal(rig->stored_count, 0);
    start(rig);
    assert_int_equal(rig->record_count, 1);
    expect_record(rig, 0, "a", "50");
    rig_free(rig);
    store_close(NULL);
}

/* The files as they lie on the disk while the daemon runs, which is what kill -9 leaves. */
static void what_was_answered_survives_a_crash(void **state)
{
    struct rig *rig = rig_new(), *copy = rig_new();
    char command[256];

    (void)state;
    start(rig);
    put_text(rig, 1, "a", "first");
    put_text(rig, 2, "b", "second");
    wait_for(rig, 2);
    (void)snprintf(command, sizeof command, "cp '%s'/* .", rig->folder);
    shell(command, copy->folder);
    start(copy);
    assert_int_equal(copy->record_count, 2);
    expect_record(copy, 0, "a", "first");
    expect_record(copy, 1, "b", "second");
    rig_free(copy);
    rig_free(rig);
}

/* The last write is lost or half there: what comes back is what was put at some earlier time, job
 * by job. */
static void a_torn_log_gives_an_earlier_state(void **state)
{
    struct rig *rig = rig_new(), *copy = rig_new();
    char command[256], path[128], text[16];
    struct stat info;
    uint64_t newest = 0;

    (void)state;
    start(rig);
    for (uint64_t lsn = 1; lsn <= 20; lsn++) {
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)lsn);
        put_text(rig, lsn, "a", text);
        wait_for(rig, (unsigned)lsn);
    }
    path_in(rig, "muster.sqlite-wal", path);
    assert_int_equal(stat(path, &info), 0);
    for (long i = 0; i <= 60; i++) {
        long cut = info.st_size * i / 60;
        uint64_t value = 0;

        (void)snprintf(command, sizeof command, "rm -f * && cp '%s'/* . && truncate -s %ld *-wal",
                       rig->folder, cut);
        shell(command, copy->folder);
        start(copy);
        if (copy->record_count > 0)
            value = strtoull((const char *)copy->records[0].bytes, NULL, 10);
        if (copy->record_count > 1 || value > 20 || value < newest)
            fail_msg("cut at %ld: %u records, %llu after %llu", cut, copy->record_count,
                     (unsigned long long)value, (unsigned long long)newest);
        newest = value;
        stop(copy);
        memset(copy->records, 0, sizeof copy->records);
    }
    assert_int_equal(newest, 20);
    rig_free(copy);
    rig_free(rig);
}

/* ---- refused -------------------------------------------------------------------------------- */

static void a_second_coordinator_is_refused(void **state)
{
    struct rig *rig = rig_new(), *second = rig_new();
    char pid[32];

    (void)state;
    start(rig);
    (void)snprintf(pid, sizeof pid, "(pid %ld)", (long)getpid());
    expect_error(second, open_in(second, rig->folder), STORE_ERROR_LOCKED, pid);
    expect_error(second, open_in(second, rig->folder), STORE_ERROR_LOCKED, rig->folder);
    put_text(rig, 1, "a", "still"); /* and the first one did not notice */
    wait_for(rig, 1);
    assert_int_equal(rig->failed_count, 0);
    stop(rig);
    assert_int_equal(open_in(second, rig->folder), STORE_OK);
    rig_free(second);
    rig_free(rig);
}

/* Somebody else, who does not know our lock, has the file open. */
static void a_file_in_use_is_not_called_damaged(void **state)
{
    struct rig *rig = rig_new();
    sqlite3 *other = NULL;
    char path[128];
    enum store_error result;

    (void)state;
    start(rig);
    stop(rig);
    path_in(rig, "muster.sqlite", path);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(other, "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE", NULL, NULL, NULL),
        SQLITE_OK);
    result = open_in(rig, rig->folder);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    expect_error(rig, result, STORE_ERROR_LOCKED, "database is locked");
    assert_null(strstr(rig->error, "move it away"));
    start(rig);
    rig_free(rig);
}

static void run_sql(const struct rig *rig, const char *sql)
{
    sqlite3 *database = NULL;
    char path[128];

    path_in(rig, "muster.sqlite", path);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(database), SQLITE_OK);
}

static void a_foreign_file_is_refused_and_left_as_it_is(void **state)
{
    struct rig *rig = rig_new();

    (void)state;
    run_sql(rig, "CREATE TABLE cooking(recipe TEXT); INSERT INTO cooking VALUES('soup')");
    expect_error(rig, open_in(rig, rig->folder), STORE_ERROR_FOREIGN, "not Muster's");
    run_sql(rig, "UPDATE cooking SET recipe='stew' WHERE recipe='soup'");
    shell("rm -f muster.sqlite*", rig->folder);
    run_sql(rig, "PRAGMA application_id=1");
    expect_error(rig, open_in(rig, rig->folder), STORE_ERROR_FOREIGN, "not Muster's");
    shell("rm -f muster.sqlite*", rig->folder);
    start(rig);
    stop(rig);
    run_sql(rig, "PRAGMA user_version=2");
    expect_error(rig, open_in(rig, rig->folder), STORE_ERROR_FOREIGN,
                 "version 2, this program reads 1");
    rig_free(rig);
}

/* A first start that was killed between its marks and its table. */
static void a_file_that_was_hardly_begun_is_gone_on_with(void **state)
{
    static const char *const marks[] = {"PRAGMA application_id=0x4d535452",
                                        "PRAGMA application_id=0x4d535452; PRAGMA user_version=1"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct rig *rig = rig_new();

        run_sql(rig, marks[i]);
        start(rig);
        put_text(rig, 1, "a", "x");
        wait_for(rig, 1);
        assert_int_equal(rig->failed_count, 0);
        rig_free(rig);
    }
}

static void a_file_that_is_no_database_is_damaged(void **state)
{
    struct rig *rig = rig_new();

    (void)state;
    shell("printf 'this is not a database, but it is long enough to be one .............' "
          "> muster.sqlite",
          rig->folder);
    expect_error(rig, open_in(rig, rig->folder), STORE_ERROR_DAMAGED, "muster.sqlite");
    expect_error(rig, open_in(rig, rig->folder), STORE_ERROR_DAMAGED, "move it away to start anew");
    shell(": > muster.sqlite", rig->folder);
    start(rig); /* an empty one is a new one */
    rig_free(rig);
}

/* Bits anywhere in the file: refused with a sentence, or opened; never a crash, and never a
 * silence. */
static void changed_bits_do_no_harm(void **state)
{
    struct rig *rig = rig_new();
    unsigned refused = 0;
    uint64_t seed = SEED;
    char path[128], command[256];
    struct stat info;

    (void)state;
    start(rig);
    for (uint64_t lsn = 1; lsn <= 10; lsn++) {
        char job[2] = {(char)('a' + lsn), '\0'};

        put_text(rig, lsn, job, "some record");
    }
    wait_for(rig, 10);
    stop(rig);
    path_in(rig, "muster.sqlite", path);
    assert_int_equal(stat(path, &info), 0);
    shell("cp muster.sqlite whole", rig->folder);
    for (unsigned i = 0; i < FLIPS; i++) {
        FILE *file;
        long at;
        int byte;

        shell("rm -f muster.sqlite-wal muster.sqlite-shm; cp whole muster.sqlite", rig->folder);
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        at = (long)((seed >> 33) % (i % 2 ? 200 : (uint64_t)info.st_size));
        file = fopen(path, "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        byte = fgetc(file) ^ (1 << i % 8);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_not_equal(fputc(byte, file), EOF);
        assert_int_equal(fclose(file), 0);
        if (open_and_load(rig) != STORE_OK) {
            (void)snprintf(command, sizeof command, "seed %u, byte %ld, bit %u", SEED, at, i % 8);
            if (strstr(rig->error, "muster.sqlite") == NULL)
                fail_msg("%s: '%s'", command, rig->error);
            refused++;
        }
        stop(rig);
    }
    if (refused == 0 || refused == FLIPS)
        fail_msg("%u of %u were refused", refused, FLIPS);
    rig_free(rig);
}

static void a_folder_that_cannot_be_used_is_named(void **state)
{
    struct rig *rig = rig_new();
    char path[128];
    enum store_error result;

    (void)state;
    path_in(rig, "missing/deeper", path);
    expect_error(rig, open_in(rig, path), STORE_ERROR_FOLDER, "missing/deeper cannot be made");
    path_in(rig, "file", path);
    shell(": > file", rig->folder);
    expect_error(rig, open_in(rig, path), STORE_ERROR_FOLDER, "is not a folder");
    assert_int_equal(chmod(rig->folder, 0555), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(NOBODY), 0); /* permissions do not hold root back */
    result = open_in(rig, rig->folder);
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    expect_error(rig, result, STORE_ERROR_FOLDER, "lock: Permission denied");
    assert_int_equal(chmod(rig->folder, 0755), 0);
    rig_free(rig);
}

/* ---- a full disk ---------------------------------------------------------------------------- */

static void limit_files(rlim_t bytes)
{
    const struct rlimit limit = {bytes, RLIM_INFINITY};

    assert_int_not_equal(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* What was there stays, the failure is told, and with room again it goes on. */
static void a_full_disk_is_told_and_survived(void **state)
{
    struct rig *rig = rig_new();
    uint8_t *large = calloc(1, 1 << 20);

    (void)state;
    assert_non_null(large);
    start(rig);
    put_text(rig, 1, "a", "before");
    wait_for(rig, 1);
    limit_files(100000);
    store_put(rig->store, 2, "b", large, 1 << 20);
    wait_for(rig, 2);
    limit_files(RLIM_INFINITY);
    assert_int_equal(rig->failed_count, 1);
    assert_int_equal(rig->stored[1], 2);
    if (strstr(rig->failure, "muster.sqlite: ") == NULL)
        fail_msg("'%s' does not name the file", rig->failure);
    put_text(rig, 3, "c", "after");
    wait_for(rig, 3);
    assert_int_equal(rig->failed_count, 1);
    stop(rig);
    start(rig);
    assert_int_equal(rig->record_count, 2);
    expect_record(rig, 0, "a", "before");
    expect_record(rig, 1, "c", "after");
    free(large);
    rig_free(rig);
}

static void a_start_on_a_full_disk_is_refused(void **state)
{
    struct rig *rig = rig_new();
    enum store_error result;

    (void)state;
    limit_files(1);
    result = open_in(rig, rig->folder);
    limit_files(RLIM_INFINITY);
    expect_error(rig, result, STORE_ERROR_DISK, rig->folder);
    limit_files(1000);
    result = open_in(rig, rig->folder);
    limit_files(RLIM_INFINITY);
    expect_error(rig, result, STORE_ERROR_DISK, "muster.sqlite: ");
    start(rig);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_stored_is_there_again),
        cmocka_unit_test(nothing_is_answered_before_it_is_synced),
        cmocka_unit_test(answers_come_in_the_order_of_the_puts),
        cmocka_unit_test(closing_writes_what_is_under_way_without_a_word),
        cmocka_unit_test(what_was_answered_survives_a_crash),
        cmocka_unit_test(a_torn_log_gives_an_earlier_state),
        cmocka_unit_test(a_second_coordinator_is_refused),
        cmocka_unit_test(a_file_in_use_is_not_called_damaged),
        cmocka_unit_test(a_foreign_file_is_refused_and_left_as_it_is),
        cmocka_unit_test(a_file_that_was_hardly_begun_is_gone_on_with),
        cmocka_unit_test(a_file_that_is_no_database_is_damaged),
        cmocka_unit_test(changed_bits_do_no_harm),
        cmocka_unit_test(a_folder_that_cannot_be_used_is_named),
        cmocka_unit_test(a_full_disk_is_told_and_survived),
        cmocka_unit_test(a_start_on_a_full_disk_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
