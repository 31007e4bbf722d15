/* One request to the coordinator's control socket: a line of JSON there, a line of JSON back. */
#include "cli/command.h"

#include "base/exits.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_MAX_BYTES = 1 << 20, TIMEOUT_MS = 30000 };

static int unavailable(struct error *error, const char *path, const char *why)
{
    return error_set(error, EXIT_UNAVAILABLE,
                     "no coordinator at %s (%s); set --state or --control to its folder or socket",
                     path, why);
}

static int connect_to(const char *path, int *descriptor, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path)
        return error_set(error, EXIT_USAGE,
                         "--control or --state: %.300s is longer than the %zu bytes of a socket's "
                         "path",
                         path, sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    *descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*descriptor < 0 ||
        connect(*descriptor, (const struct sockaddr *)&address, sizeof address) != 0)
        return unavailable(error, path, strerror(errno));
    return 0;
}

static int send_line(int descriptor, const char *path, const char *line, struct error *error)
{
    size_t bytes = strlen(line);

    while (bytes > 0) {
        ssize_t done = send(descriptor, line, bytes, MSG_NOSIGNAL);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return unavailable(error, path, strerror(errno));
        line += done;
        bytes -= (size_t)done;
    }
    return 0;
}

/* Up to a line feed or the end; *line is the caller's to free. */
static int read_line(int descriptor, const char *path, char **line, struct error *error)
{
    struct pollfd poller = {.fd = descriptor, .events = POLLIN};
    size_t bytes = 0;

    *line = malloc(ANSWER_MAX_BYTES);
    if (!*line)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory");
    for (;;) {
        int ready = poll(&poller, 1, TIMEOUT_MS);
        ssize_t got;

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return unavailable(error, path, ready == 0 ? "no answer in time" : strerror(errno));
        got = read(descriptor, *line + bytes, ANSWER_MAX_BYTES - 1 - bytes);
        if (got < 0)
            return unavailable(error, path, strerror(errno));
        bytes += (size_t)got;
        (*line)[bytes] = '\0';
        if (got == 0 || strchr(*line, '\n'))
            return 0;
    }
}

static char *make_request(const char *command, const char *job, const char *target)
{
    json_t *object = json_object();
    char *compact = NULL;
    char *line = NULL;

    if (object && json_object_set_new(object, "command", json_string(command)) == 0 &&
        (!job || json_object_set_new(object, "job", json_string(job)) == 0) &&
        (!target || json_object_set_new(object, "target", json_string(target)) == 0))
        compact = json_dumps(object, JSON_COMPACT);
    if (compact)
        line = malloc(strlen(compact) + 2);
    if (line) {
        size_t bytes = strlen(compact);

        memcpy(line, compact, bytes);
        memcpy(line + bytes, "\n", 2);
    }
    free(compact);
    json_decref(object);
    return line;
}

static int judge(const char *path, const char *line, char **text, struct error *error)
{
    json_t *answer = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    const json_t *ok = json_object_get(answer, "ok");
    const char *said = json_string_value(json_object_get(answer, "text"));
    int result = 0;

    if (!json_is_boolean(ok))
        result = unavailable(error, path, "it does not answer as a coordinator");
    else if (!json_is_true(ok))
        result = error_set(error, EXIT_REFUSED, "%s", said ? said : "refused without a reason");
    else
        *text = strdup(said ? said : "");
    json_decref(answer);
    return result;
}

/* A word that is not UTF-8 cannot be asked for; jansson says so by NULL. */
static int ask(const char *path, const char *request, char **text, struct error *error)
{
    int descriptor = -1;
    char *line = NULL;
    int result = connect_to(path, &descriptor, error);

    if (result == 0)
        result = send_line(descriptor, path, request, error);
    if (result == 0)
        result = read_line(descriptor, path, &line, error);
    if (result == 0)
        result = judge(path, line, text, error);
    free(line);
    if (descriptor >= 0)
        (void)close(descriptor);
    return result;
}

int control_ask(const char *state, const char *socket_path, const char *command, const char *job,
                const char *target, char **text, struct error *error)
{
    char *request = make_request(command, job, target);
    char path[4096];
    int result;

    if (!request)
        return error_set(error, EXIT_USAGE, "--job or the member's name is not text (UTF-8)");
    if (socket_path)
        (void)snprintf(path, sizeof path, "%s", socket_path);
    else
        (void)snprintf(path, sizeof path, "%s/control.sock", state);
    *text = NULL;
    result = ask(path, request, text, error);
    free(request);
    return result;
}
