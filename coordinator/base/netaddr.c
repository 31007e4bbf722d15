#include "base/netaddr.h"

#include "base/exits.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Splits at the last colon; brackets around the host are taken off. */
static bool split(const char *text, char *host, size_t host_bytes, char *port, size_t port_bytes)
{
    const char *colon = strrchr(text, ':');
    size_t length = colon != NULL ? (size_t)(colon - text) : 0;
    char *end;
    long number;

    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) >= port_bytes)
        return false;
    number = strtol(colon + 1, &end, 10);
    if (*end != '\0' || number < 0 || number > 65535)
        return false;
    (void)snprintf(port, port_bytes, "%s", colon + 1);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    } else if (memchr(text, ':', length) != NULL) {
        return false; /* an IPv6 address without brackets */
    }
    if (length >= host_bytes)
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    return true;
}

int netaddr_parse(const char *text, const char *what, struct sockaddr_storage *address,
                  struct error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    char host[256], port[8];
    int status;

    if (!split(text, host, sizeof host, port, sizeof port))
        return error_set(error, EXIT_USAGE,
                         "%s %s: expected HOST:PORT or [IPV6]:PORT with a port from 0 to 65535",
                         what, text);
    if (host[0] == '\0' || strcmp(host, "*") == 0)
        hints.ai_flags = AI_PASSIVE;
    status = getaddrinfo(hints.ai_flags != 0 ? NULL : host, port, &hints, &list);
    if (status != 0)
        return error_set(error, EXIT_USAGE, "%s %s: %s", what, text, gai_strerror(status));
    memset(address, 0, sizeof *address);
    memcpy(address, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    return 0;
}

bool netaddr_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;

        return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr) && six->sin6_addr.s6_addr[12] == 127);
    }
    return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
}

void netaddr_text(const struct sockaddr_storage *address, char *text, size_t text_bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;

        (void)inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        (void)snprintf(text, text_bytes, "[%s]:%u", host, ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;

        (void)inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        (void)snprintf(text, text_bytes, "%s:%u", host, ntohs(four->sin_port));
    }
}
