/* "HOST:PORT" and "[V6]:PORT". */
#ifndef BASE_NETADDR_H
#define BASE_NETADDR_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define NETADDR_TEXT_BYTES 64 /* enough for every address of netaddr_text() */

/* Is it of that form, with a port from 0 to 65535? Nothing is resolved. */
bool netaddr_is_form(const char *text);

/* And can it be connected to: neither all addresses nor port 0? */
bool netaddr_is_peer(const char *text);

/* Parses and, for a name, resolves (which may block: at start-up only). Host "" or "*" means all
 * addresses. 0, or EXIT_USAGE with a sentence that names `what` (the option). */
int netaddr_parse(const char *text, const char *what, struct sockaddr_storage *address,
                  struct error *error);
bool netaddr_is_loopback(const struct sockaddr_storage *address);

/* IPv4 and IPv6; anything else is "?". */
void netaddr_text(const struct sockaddr_storage *address, char *text, size_t text_bytes);

#endif
