/* Addresses as people write them. */
#include "comm/tcp/address.h"

#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static bool port_of(const char *text, uint16_t *port)
{
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    unsigned long value = strtoul(text, &end, 10);
    if (*end != '\0' || value > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)value;
    return true;
}

bool address_split(const char *text, struct address_parts *parts)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || !port_of(colon + 1, &parts->port)) {
        return false;
    }
    const char *host = text;
    size_t bytes = (size_t)(colon - text);
    if (bytes >= 2 && host[0] == '[' && host[bytes - 1] == ']') {
        host++;
        bytes -= 2;
    } else if (memchr(host, ':', bytes) != NULL) {
        return false;
    }
    if (bytes >= sizeof parts->host) {
        return false;
    }
    memcpy(parts->host, host, bytes);
    parts->host[bytes] = '\0';
    return true;
}

bool address_numeric(const struct address_parts *parts, struct sockaddr_storage *out)
{
    const char *host = parts->host[0] != '\0' ? parts->host : "0.0.0.0";
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    memset(out, 0, sizeof *out);
    if (uv_ip4_addr(host, parts->port, &v4) == 0) {
        memcpy(out, &v4, sizeof v4);
        return true;
    }
    if (uv_ip6_addr(host, parts->port, &v6) == 0) {
        memcpy(out, &v6, sizeof v6);
        return true;
    }
    return false;
}

void address_text(const struct sockaddr_storage *address, char *text, size_t text_bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    memcpy(&v4, address, sizeof v4);
    memcpy(&v6, address, sizeof v6);
    bool is_v6 = address->ss_family == AF_INET6;
    bool all =
        is_v6 ? IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr) : v4.sin_addr.s_addr == htonl(INADDR_ANY);
    unsigned port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
    if (all) {
        snprintf(text, text_bytes, ":%u", port);
    } else if (is_v6) {
        uv_ip6_name(&v6, host, sizeof host);
        snprintf(text, text_bytes, "[%s]:%u", host, port);
    } else {
        uv_ip4_name(&v4, host, sizeof host);
        snprintf(text, text_bytes, "%s:%u", host, port);
    }
}

socklen_t address_bytes(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in);
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *v4 = (const void *)address;
    const struct sockaddr_in6 *v6 = (const void *)address;
    return address->ss_family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
                                         : IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static bool same_ip(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
    return a->ss_family == AF_INET
               ? a4->sin_addr.s_addr == b4->sin_addr.s_addr
               : memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof a6->sin6_addr) == 0;
}

bool address_same_host(int fd)
{
    struct sockaddr_storage here, there;
    socklen_t here_bytes = sizeof here, there_bytes = sizeof there;
    if (getsockname(fd, (struct sockaddr *)&here, &here_bytes) != 0 ||
        getpeername(fd, (struct sockaddr *)&there, &there_bytes) != 0 ||
        here.ss_family != there.ss_family ||
        (here.ss_family != AF_INET && here.ss_family != AF_INET6)) {
        return false;
    }
    return is_loopback(&there) || same_ip(&here, &there);
}

socklen_t address_unix(const uint8_t id[COMM_ID_BYTES], struct sockaddr_un *out)
{
    static const char prefix[] = "muster-data-";
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    char *at = out->sun_path + 1; /* a leading zero byte: the abstract namespace */
    memcpy(at, prefix, sizeof prefix - 1);
    at += sizeof prefix - 1;
    for (unsigned i = 0; i < COMM_ID_BYTES; i++) {
        *at++ = "0123456789abcdef"[id[i] >> 4];
        *at++ = "0123456789abcdef"[id[i] & 15];
    }
    return (socklen_t)(at - (char *)out);
}
