/* "HOST:PORT", and the address of this host on the way there. */
#include "client_private.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool port_valid(const char *port)
{
    unsigned number = 0;
    size_t digits = strspn(port, "0123456789");

    if (digits == 0 || digits >= CLIENT_PORT_BYTES || port[digits] != '\0')
        return false;
    for (size_t i = 0; i < digits; i++)
        number = number * 10 + (unsigned)(port[i] - '0');
    return number >= 1 && number <= 65535;
}

bool client_address_split(const char *text, struct client_address *address)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t host_bytes;

    if (!colon || !port_valid(colon + 1))
        return false;
    host_bytes = (size_t)(colon - text);
    if (host[0] == '[' && host_bytes >= 2 && host[host_bytes - 1] == ']') {
        host++;
        host_bytes -= 2;
    } else if (memchr(host, ':', host_bytes)) {
        return false; /* an IPv6 number without brackets */
    }
    if (host_bytes == 0 || host_bytes >= CLIENT_HOST_BYTES)
        return false;
    memcpy(address->host, host, host_bytes);
    address->host[host_bytes] = '\0';
    memcpy(address->port, colon + 1, strlen(colon + 1) + 1);
    return true;
}

/* A datagram socket that is connected knows its own address, without a packet sent. */
static int own_address(const struct addrinfo *to, char *address, size_t address_bytes)
{
    struct sockaddr_storage own;
    socklen_t own_bytes = sizeof own;
    int descriptor = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int error = EAI_SYSTEM;

    if (descriptor >= 0 && connect(descriptor, to->ai_addr, to->ai_addrlen) == 0 &&
        getsockname(descriptor, (struct sockaddr *)&own, &own_bytes) == 0)
        error = getnameinfo((const struct sockaddr *)&own, own_bytes, address,
                            (socklen_t)address_bytes, NULL, 0, NI_NUMERICHOST);
    if (descriptor >= 0)
        (void)close(descriptor);
    return error;
}

enum muster_status muster_local_address(const char *coordinator, char *address,
                                        size_t address_bytes, struct muster_error *error)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
    struct client_address to;
    struct addrinfo *list = NULL;
    int failure;

    if (!coordinator || !client_address_split(coordinator, &to))
        return client_explain(error, MUSTER_ERROR_USAGE, "coordinator: '%.256s' is not HOST:PORT",
                              coordinator ? coordinator : "");
    failure = getaddrinfo(to.host, to.port, &hints, &list);
    if (failure == 0) {
        failure = EAI_NONAME;
        for (const struct addrinfo *at = list; at && failure != 0; at = at->ai_next)
            failure = own_address(at, address, address_bytes);
        freeaddrinfo(list);
    }
    if (failure == 0)
        return MUSTER_OK;
    return client_explain(error, MUSTER_ERROR_UNAVAILABLE, "no way to %.256s: %s", coordinator,
                          failure == EAI_SYSTEM ? strerror(errno) : gai_strerror(failure));
}
