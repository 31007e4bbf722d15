/* Splitting of "HOST:PORT". */
#include "client_private.h"

#include <string.h>

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
