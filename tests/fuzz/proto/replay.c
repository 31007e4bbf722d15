/* Runs a fuzz target over every file of a folder: the corpus as an ordinary test.
 *
 *   replay CORPUS LEAST
 *
 * Fewer inputs than LEAST are an error: the folder is not the corpus. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUT_MAX_BYTES = 1 << 20, PATH_BYTES = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One input, in memory of exactly its size so that a byte read too much is seen. */
static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *room = malloc(INPUT_MAX_BYTES);
    uint8_t *exact = NULL;
    size_t bytes = 0;
    int done = 0;

    if (file && room) {
        bytes = fread(room, 1, INPUT_MAX_BYTES, file);
        exact = malloc(bytes + 1);
    }
    if (exact) {
        for (size_t i = 0; i < bytes; i++)
            exact[i] = room[i];
        exact = realloc(exact, bytes ? bytes : 1);
        (void)LLVMFuzzerTestOneInput(exact, bytes);
        done = 1;
    }
    free(exact);
    free(room);
    if (file)
        (void)fclose(file);
    return done;
}

int main(int count, char **arguments)
{
    DIR *folder = count == 3 ? opendir(arguments[1]) : NULL;
    struct dirent *entry;
    char path[PATH_BYTES];
    unsigned inputs = 0;

    if (!folder) {
        fprintf(stderr, "usage: %s CORPUS LEAST\n", arguments[0]);
        return 64;
    }
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", arguments[1], entry->d_name);
        if (!replay(path)) {
            fprintf(stderr, "%s cannot be read\n", path);
            return 1;
        }
        inputs++;
    }
    (void)closedir(folder);
    printf("%u inputs\n", inputs);
    return inputs >= strtoul(arguments[2], NULL, 10) ? 0 : 1;
}
