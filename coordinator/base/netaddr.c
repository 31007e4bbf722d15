#include "base/netaddr.h"

#include "base/exits.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_BYTES 256 /* the longest name of the DNS has 253 */
#define PORT_BYTES 8

/* One to seven digits that make a port. */
static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 0 && digits < PORT_BYTES && text[digits] == '\0' &&
           strtol(text, NULL, 10) <= 65535;
}

/* Splits at the last colon; brackets around the host are taken off. */
static bool split(const char *text, char host[HOST_BYTES], char port[PORT_BYTES])
{
    const char *colon = strrchr(text, ':');
    size_t length = colon != NULL ? (size_t)(colon - text) : 0;

    if (colon == NULL || !is_port(colon + 1))
        return false;
    (void)snprintf(port, PORT_BYTES, "%s", colon + 1);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    } else if (memchr(text, ':', length) != NULL) {
        return false; /* an IPv6 address without brackets */
    }
    if (length >= HOST_BYTES)
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    return true;
}

bool netaddr_is_form(const char *text)
{
    char host[HOST_BYTES], port[PORT_BYTES];

    return split(text, host, port);
}

bool netaddr_is_peer(const char *text)
{
    char host[HOST_BYTES], port[PORT_BYTES];

    return split(text, host, port) && host[0] != '\0' && strcmp(host, "*") != 0 &&
           strtol(port, NULL, 10) > 0;
}

int netaddr_parse(const char *text, const char *what, struct sockaddr_storage *address,
                  struct error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    char host[HOST_BYTES], port[PORT_BYTES];
    int status;

    if (!split(text, host, port))
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
    return address->ss_family == AF_INET &&
           ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
}

void netaddr_text(const struct sockaddr_storage *address, char *text, size_t text_bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;

        (void)inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        (void)snprintf(text, text_bytes, "[%s]:%u", host, ntohs(six->sin6_port));
    } else if (address->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;

        (void)inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        (void)snprintf(text, text_bytes, "%s:%u", host, ntohs(four->sin_port));
    } else {
        (void)snprintf(text, text_bytes, "?");
    }
}
