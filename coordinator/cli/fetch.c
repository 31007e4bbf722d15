/* GET of a small JSON document from the coordinator's HTTP port, by libcurl. */
#include "cli/command.h"

#include "base/exits.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX_BYTES = 64 << 20, CONNECT_TIMEOUT_MS = 5000, TIMEOUT_MS = 20000, URL_BYTES = 512 };

/* A body that grows. */
struct body {
    char *text;   /* ends with NUL; NULL = empty */
    size_t bytes; /* without the NUL */
};

static size_t body_grow(char *data, size_t size, size_t count, void *context)
{
    struct body *body = context;
    size_t bytes = size * count;
    char *text;

    if (bytes > BODY_MAX_BYTES - body->bytes)
        return 0;
    text = realloc(body->text, body->bytes + bytes + 1);
    if (!text)
        return 0;
    memcpy(text + body->bytes, data, bytes);
    body->text = text;
    body->bytes += bytes;
    text[body->bytes] = '\0';
    return bytes;
}

/* No proxy, no redirects, no signals: the coordinator is spoken to directly. */
static CURLcode perform(CURL *handle, const char *url, struct body *body, long *status)
{
    CURLcode code;

    (void)curl_easy_setopt(handle, CURLOPT_URL, url);
    (void)curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
    (void)curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    (void)curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS);
    (void)curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, body_grow);
    (void)curl_easy_setopt(handle, CURLOPT_WRITEDATA, body);
    code = curl_easy_perform(handle);
    if (code == CURLE_OK)
        code = curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, status);
    return code;
}

static int parse(const char *url, const struct body *body, json_t **object, struct error *error)
{
    json_error_t where;

    *object = json_loadb(body->text ? body->text : "", body->bytes, JSON_REJECT_DUPLICATES, &where);
    if (!*object)
        return error_set(error, EXIT_UNAVAILABLE, "what answers at %s is no muster-coordinator: %s",
                         url, where.text);
    return 0;
}

int fetch_json(const char *address, const char *path, json_t **object, struct error *error)
{
    CURL *handle = curl_easy_init();
    struct body body = {NULL, 0};
    char url[URL_BYTES];
    long status = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    int result;

    (void)snprintf(url, sizeof url, "http://%s%s", address, path);
    if (handle)
        code = perform(handle, url, &body, &status);
    if (code != CURLE_OK)
        result = error_set(error, EXIT_UNAVAILABLE,
                           "no coordinator at %s (%s); set --http or MUSTER_HTTP", url,
                           curl_easy_strerror(code));
    else if (status != 200)
        result = error_set(error, EXIT_UNAVAILABLE, "%s answers with HTTP status %ld", url, status);
    else
        result = parse(url, &body, object, error);
    free(body.text);
    curl_easy_cleanup(handle);
    return result;
}

const char *fetch_version(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}
