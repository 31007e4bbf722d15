/* Addresses as people write them: "HOST:PORT", "[V6]:PORT". */
#ifndef MUSTER_COMM_TCP_ADDRESS_H
#define MUSTER_COMM_TCP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "comm/comm.h"

struct address_parts {
    char host[COMM_ADDRESS_BYTES]; /* without brackets; may be empty: all addresses */
    uint16_t port;
};

/* false: no port, or a number out of range, or too long. */
bool address_split(const char *text, struct address_parts *parts);

/* A numeric host becomes a socket address; false: it is a name. */
bool address_numeric(const struct address_parts *parts, struct sockaddr_storage *out);

/* "10.0.0.5:4711", "[::1]:4711", or ":4711" for the address that means all. */
void address_text(const struct sockaddr_storage *address, char *text, size_t text_bytes);

socklen_t address_bytes(const struct sockaddr_storage *address);

/* Do both ends of the connected socket lie on this host, as far as their addresses tell? */
bool address_same_host(int fd);

/* The name in Linux's abstract namespace under which a member can be reached inside its host. */
socklen_t address_unix(const uint8_t id[COMM_ID_BYTES], struct sockaddr_un *out);

#endif
