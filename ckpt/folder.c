#include "ckpt/folder.h"

#include "ckpt/system.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define PREFIX    "step-"
#define TEMPORARY ".tmp-"
#define DIGITS    8

/* Digits at text, without zeros in front beyond `least` of them; NULL = not. Else what follows. */
static const char *take_number(const char *text, size_t least, uint64_t *value)
{
    size_t count = strspn(text, "0123456789");

    if (count < least || count == 0 || count > 19 || (count > least && text[0] == '0' && count > 1))
        return NULL;
    *value = 0;
    for (size_t i = 0; i < count; i++)
        *value = *value * 10 + (uint64_t)(text[i] - '0');
    return text + count;
}

static const char *take_step(const char *name, uint64_t *step)
{
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
        return NULL;
    return take_number(name + sizeof PREFIX - 1, DIGITS, step);
}

bool folder_step(const char *name, uint64_t *step)
{
    const char *rest = take_step(name, step);

    return rest != NULL && rest[0] == '\0';
}

bool folder_temporary(const char *name, uint64_t *step, uint64_t *generation)
{
    const char *rest = take_step(name, step);

    if (rest == NULL || strncmp(rest, TEMPORARY, sizeof TEMPORARY - 1) != 0)
        return false;
    rest = take_number(rest + sizeof TEMPORARY - 1, 1, generation);
    return rest != NULL && rest[0] == '-';
}

void folder_step_name(uint64_t step, char *name)
{
    (void)snprintf(name, FOLDER_NAME_BYTES, PREFIX "%0*llu", DIGITS, (unsigned long long)step);
}

/* Processes on several hosts may write here: the process id alone would not be enough. */
void folder_temporary_name(uint64_t step, uint64_t generation, char *name)
{
    static uint64_t calls;
    uint64_t id = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) << 32 | (uint64_t)getpid();

    if (getrandom(&id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id)
        id ^= (uint64_t)getpid() << 20; /* what there is of randomness, and the process */
    (void)snprintf(name, FOLDER_NAME_BYTES, PREFIX "%0*llu" TEMPORARY "%llu-%016llx", DIGITS,
                   (unsigned long long)step, (unsigned long long)generation,
                   (unsigned long long)id);
}

/* ---- listing -------------------------------------------------------------------------------- */

enum ckpt_code folder_each(const char *path, void (*name_cb)(void *owner, const char *name),
                           void *owner, struct ckpt_error *error)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    enum ckpt_code code = CKPT_OK;

    if (folder == NULL)
        return ckpt_fail(error, errno == ENOENT ? CKPT_NONE : CKPT_SYSTEM, "%s: %s",
                         ckpt_tail(path), strerror(errno));
    for (errno = 0; (entry = readdir(folder)) != NULL; errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            name_cb(owner, entry->d_name);
    if (errno != 0)
        code = ckpt_fail(error, CKPT_SYSTEM, "%s: listing it failed: %s", ckpt_tail(path),
                         strerror(errno));
    (void)closedir(folder);
    return code;
}

struct list {
    struct ckpt_row *rows; /* becomes the caller's */
    uint32_t count, room;  /* of rows */
    bool failed;           /* out of memory */
};

static void add_row(void *owner, const char *name)
{
    struct list *list = owner;
    struct ckpt_row *row;
    uint64_t step;

    if (!folder_step(name, &step))
        return;
    if (list->count == list->room) {
        uint32_t room = list->room * 2 + 16;
        struct ckpt_row *more = realloc(list->rows, room * sizeof *more);

        list->failed |= more == NULL;
        if (more == NULL)
            return;
        list->rows = more;
        list->room = room;
    }
    row = &list->rows[list->count++];
    memset(row, 0, sizeof *row);
    (void)snprintf(row->name, sizeof row->name, "%s", name);
    row->step = step;
}

static int newest_first(const void *a, const void *b)
{
    const struct ckpt_row *x = a, *y = b;

    return x->step > y->step ? -1 : x->step < y->step;
}

enum ckpt_code folder_scan(const char *path, struct ckpt_row **rows, uint32_t *count,
                           struct ckpt_error *error)
{
    struct list list = {NULL, 0, 0, false};
    enum ckpt_code code = CKPT_OK;

    if (strlen(path) >= FOLDER_LENGTH_MAX)
        code = ckpt_fail(error, CKPT_LIMIT, "..%s: the path is too long", ckpt_tail(path));
    else
        code = folder_each(path, add_row, &list, error);
    if (code == CKPT_OK && list.failed)
        code = ckpt_fail(error, CKPT_MEMORY, "%s: out of memory for its names", ckpt_tail(path));
    if (code == CKPT_OK && list.count == 0)
        code = ckpt_fail(error, CKPT_NONE, "%s holds no checkpoint", ckpt_tail(path));
    if (list.count > 0)
        qsort(list.rows, list.count, sizeof *list.rows, newest_first);
    *rows = list.rows;
    *count = list.count;
    return code;
}

/* ---- removing ------------------------------------------------------------------------------- */

static void remove_file(void *owner, const char *name)
{
    char path[FOLDER_PATH_BYTES + 256];

    (void)snprintf(path, sizeof path, "%s/%s", (const char *)owner, name);
    (void)ckpt_system()->unlink(path);
}

void folder_remove(const char *path)
{
    struct ckpt_error ignored;

    (void)folder_each(path, remove_file, (void *)(uintptr_t)path, &ignored);
    (void)ckpt_system()->rmdir(path);
}
