/* Invariants
 *   1. A client reads, asks, or is answered; only one that reads is read from, so that what it may
 *      say meanwhile stays in its socket. Its buffer then holds no whole line.
 *   2. ticket = slot + serial << 32; the serial of a slot grows with each request, so an answer is
 *      given at most once and never to somebody else.
 *   3. Who finds all slots taken waits until one is free, and one is within CONTROL_IDLE_MS, unless
 *      all wait for the runtime.
 *   4. Nothing is asked from inside control_answer(): the next line is taken when the answer has
 *      left. */
#include "server/control.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 16
#define LINE_BYTES  4096
#define PATH_BYTES  108

enum client_state {
    CLIENT_FREE,
    CLIENT_READS,    /* its line is waited for */
    CLIENT_ASKS,     /* the runtime has its request */
    CLIENT_ANSWERED, /* the answer leaves */
    CLIENT_CLOSING,  /* until the close callback */
};

struct client {
    uv_pipe_t pipe;
    struct control *control;
    char line[LINE_BYTES];
    size_t length;     /* bytes in line */
    uint64_t since_us; /* loop time at which it came to its state */
    uint32_t serial;   /* of the request that is under way */
    enum client_state state;
    bool last;         /* it is closed when its answer has left */
};

struct control {
    uv_pipe_t listener;
    control_request_cb request_cb;
    void *owner;
    char path[PATH_BYTES];
    struct stat made; /* the file at path, when it was made */
    uint32_t handles; /* listener and clients that are not closed */
    bool waits;       /* a connection found no slot; libuv brings no other before it is taken */
    bool stopping;
    struct client clients[CLIENTS_MAX];
};

struct answer {
    uv_write_t request;
    char text[];
};

static void take_connection(struct control *control);
static void take_lines(struct client *client);

static void handle_closed(struct control *control)
{
    if (--control->handles == 0)
        free(control);
}

static void client_enter(struct client *client, enum client_state state)
{
    client->state = state;
    client->since_us = uv_now(client->pipe.loop) * 1000;
}

static void on_client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    struct control *control = client->control;

    client->state = CLIENT_FREE;
    if (control->waits && !control->stopping)
        take_connection(control);
    handle_closed(control);
}

static void client_close(struct client *client)
{
    if (client->state == CLIENT_FREE || client->state == CLIENT_CLOSING)
        return;
    client_enter(client, CLIENT_CLOSING);
    uv_close((uv_handle_t *)&client->pipe, on_client_closed);
}

static void on_written(uv_write_t *request, int status)
{
    struct client *client = request->data;

    free(request); /* the answer's first member */
    if (client->state != CLIENT_ANSWERED)
        return;
    client_enter(client, CLIENT_READS);
    if (status < 0 || client->last)
        client_close(client);
    else
        take_lines(client);
}

/* {"ok":..,"text":..} and a line feed; NULL: no memory. */
static struct answer *answer_new(bool ok, const char *text, size_t *bytes)
{
    json_t *object = json_pack("{s:b, s:s}", "ok", (int)ok, "text", text);
    char *line = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    size_t length = line != NULL ? strlen(line) : 0;
    struct answer *answer = line != NULL ? malloc(sizeof *answer + length + 1) : NULL;

    if (answer != NULL) {
        memcpy(answer->text, line, length);
        answer->text[length] = '\n';
        *bytes = length + 1;
    }
    free(line);
    json_decref(object);
    return answer;
}

static void client_answer(struct client *client, bool ok, const char *text)
{
    size_t bytes = 0;
    struct answer *answer = answer_new(ok, text, &bytes);
    uv_buf_t buffer;

    if (answer == NULL) {
        client_close(client);
        return;
    }
    client_enter(client, CLIENT_ANSWERED);
    (void)uv_read_stop((uv_stream_t *)&client->pipe);
    answer->request.data = client;
    buffer = uv_buf_init(answer->text, (unsigned)bytes);
    if (uv_write(&answer->request, (uv_stream_t *)&client->pipe, &buffer, 1, on_written) != 0) {
        free(answer);
        client_close(client);
    }
}

/* The last that it is told. */
static void client_dismiss(struct client *client, const char *text)
{
    client->last = true;
    client_answer(client, false, text);
}

static const char *member(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static void take_request(struct client *client, json_t *object)
{
    struct control *control = client->control;
    struct control_request request = {.command = member(object, "command"),
                                      .job = member(object, "job"),
                                      .target = member(object, "target")};
    struct ucred who;
    socklen_t length = sizeof who;
    int fd;

    if (uv_fileno((uv_handle_t *)&client->pipe, &fd) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0) {
        request.peer_uid = who.uid;
        request.peer_pid = (uint32_t)who.pid;
    }
    client->serial++;
    client_enter(client, CLIENT_ASKS);
    (void)uv_read_stop((uv_stream_t *)&client->pipe);
    control->request_cb(control->owner,
                        (uint64_t)client->serial << 32 |
                            (uint64_t)(client - control->clients),
                        &request);
}

static void take_object(struct client *client, json_t *object)
{
    if (!json_is_object(object))
        client_answer(client, false, "expected one JSON object in a line");
    else if (member(object, "command")[0] == '\0')
        client_answer(client, false, "the object has no \"command\"");
    else
        take_request(client, object);
    json_decref(object);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct client *client = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(client->line + client->length, (unsigned)(LINE_BYTES - client->length));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct client *client = stream->data;

    (void)buffer;
    if (count < 0) {
        client_close(client);
        return;
    }
    client->length += (size_t)count;
    take_lines(client);
}

/* The next whole line in the buffer, or on with reading until there is one. */
static void take_lines(struct client *client)
{
    char *end = memchr(client->line, '\n', client->length);
    size_t length = end != NULL ? (size_t)(end - client->line) : 0;
    json_t *object;

    if (end == NULL && client->length == LINE_BYTES) {
        client_dismiss(client, "a line longer than 4096 bytes");
        return;
    }
    if (end == NULL) {
        int status = uv_read_start((uv_stream_t *)&client->pipe, on_alloc, on_read);

        if (status != 0 && status != UV_EALREADY)
            client_close(client);
        return;
    }
    object = json_loadb(client->line, length, JSON_REJECT_DUPLICATES, NULL);
    client->length -= length + 1;
    memmove(client->line, end + 1, client->length);
    take_object(client, object);
}

static struct client *client_take(struct control *control)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (control->clients[i].state == CLIENT_FREE)
            return &control->clients[i];
    return NULL;
}

static void take_connection(struct control *control)
{
    uv_stream_t *listener = (uv_stream_t *)&control->listener;
    struct client *client = client_take(control);

    control->waits = client == NULL;
    if (client == NULL)
        return;
    (void)uv_pipe_init(listener->loop, &client->pipe, 0); /* cannot fail on Unix */
    client->pipe.data = client;
    client->control = control;
    client->length = 0;
    client->last = false;
    client_enter(client, CLIENT_READS);
    control->handles++;
    if (uv_accept(listener, (uv_stream_t *)&client->pipe) != 0)
        client_close(client);
    else
        take_lines(client);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status == 0)
        take_connection(listener->data);
}

void control_answer(struct control *control, uint64_t ticket, bool ok, const char *text)
{
    struct client *client;

    if ((uint32_t)ticket >= CLIENTS_MAX)
        return;
    client = &control->clients[(uint32_t)ticket];
    if (client->state == CLIENT_ASKS && client->serial == (uint32_t)(ticket >> 32))
        client_answer(client, ok, text);
}

void control_judge(struct control *control, uint64_t now_us)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *client = &control->clients[i];

        if (now_us <= client->since_us + CONTROL_IDLE_MS * 1000ull)
            continue;
        if (client->state == CLIENT_READS)
            client_dismiss(client, "no whole line came in time");
        else if (client->state == CLIENT_ANSWERED)
            client_close(client);
    }
}

static void on_listener_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

/* ---- the socket file ------------------------------------------------------------------------ */

/* NULL when a socket can be made there: nothing is, or what an ended coordinator left, which is
 * removed. Else why not: what is there is somebody's. */
static const char *path_clear(const struct sockaddr_un *address)
{
    struct stat there;
    int fd, status;

    if (lstat(address->sun_path, &there) != 0)
        return NULL; /* what else may be wrong with it, bind tells */
    if (!S_ISSOCK(there.st_mode))
        return "something that is no socket is there; it was left alone";
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return strerror(errno);
    status = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
    (void)close(fd);
    if (status == 0 || status == EAGAIN)
        return "somebody listens on it already; a coordinator needs one of its own";
    if (status != ECONNREFUSED)
        return strerror(status);
    return unlink(address->sun_path) == 0 ? NULL : strerror(errno);
}

/* A bound descriptor, for the coordinator's user alone; -1 with the reason. libuv would remove the
 * file by its name alone when it closes a pipe that it has bound. */
static int path_bind(struct control *control, const char **why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t old_mask;
    int fd, status;

    memcpy(address.sun_path, control->path, strlen(control->path) + 1);
    *why = path_clear(&address);
    if (*why != NULL)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    old_mask = umask(0177);
    status = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof address);
    *why = strerror(errno);
    (void)umask(old_mask);
    if (status == 0 && lstat(control->path, &control->made) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

/* Only what it made itself: the path may have become another's. */
static void path_leave(const struct control *control)
{
    struct stat there;

    if (lstat(control->path, &there) == 0 && there.st_dev == control->made.st_dev &&
        there.st_ino == control->made.st_ino)
        (void)unlink(control->path);
}

static int control_listen(struct control *control, const char **why)
{
    int fd = path_bind(control, why), status;

    if (fd < 0)
        return UV_EADDRINUSE;
    status = uv_pipe_open(&control->listener, fd);
    if (status != 0)
        (void)close(fd);
    else
        status = uv_listen((uv_stream_t *)&control->listener, 16, on_connection);
    if (status != 0) {
        *why = uv_strerror(status);
        path_leave(control);
    }
    return status;
}

int control_start(struct control **out, uv_loop_t *loop, const char *path,
                  control_request_cb request_cb, void *owner, char *error, size_t error_bytes)
{
    struct control *control = calloc(1, sizeof *control);
    const char *why = "its path is too long";
    int status = UV_ENAMETOOLONG;

    *out = NULL;
    if (control == NULL) {
        (void)snprintf(error, error_bytes, "out of memory");
        return UV_ENOMEM;
    }
    control->request_cb = request_cb;
    control->owner = owner;
    (void)snprintf(control->path, sizeof control->path, "%s", path);
    (void)uv_pipe_init(loop, &control->listener, 0);
    control->listener.data = control;
    control->handles = 1;
    if (strlen(path) < sizeof control->path)
        status = control_listen(control, &why);
    if (status != 0) {
        (void)snprintf(error, error_bytes, "control socket %s: %s", path, why);
        uv_close((uv_handle_t *)&control->listener, on_listener_closed);
        return status;
    }
    *out = control;
    return 0;
}

void control_stop(struct control *control)
{
    if (control == NULL)
        return;
    control->stopping = true;
    path_leave(control);
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        client_close(&control->clients[i]);
    uv_close((uv_handle_t *)&control->listener, on_listener_closed);
}
