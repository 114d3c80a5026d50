// SPDX-License-Identifier: Apache-2.0

#if defined(__linux__)
#define _GNU_SOURCE
#endif

#include "tern_networks.h"

#include <errno.h>

#if defined(__linux__)

#include <linux/if_addr.h>
#include <net/if_arp.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

// From <linux/if_arp.h>, which <net/if_arp.h> does not follow.
#ifndef ARPHRD_RAWIP
#define ARPHRD_RAWIP 519
#endif

typedef struct reading {
    tern_network_interface *interfaces;
    size_t interface_capacity;
    size_t interface_count;
    tern_network_address *addresses;
    size_t address_capacity;
    size_t address_count;
} reading;

static bool starts_with(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

static bool is_wireless(const char *name) {
    char path[64];
    snprintf(path, sizeof(path), "/sys/class/net/%s/phy80211", name);
    if (access(path, F_OK) == 0) { return true; }
    snprintf(path, sizeof(path), "/sys/class/net/%s/wireless", name);
    return access(path, F_OK) == 0;
}

/// - driver: IFLA_INFO_KIND, or the empty string for hardware.
static tern_network_kind kind_of(unsigned short type, const char *driver, const char *name) {
    static const char *tunnels[] = {"wireguard", "tun", "vti", "xfrm", "gre", "ipip", "sit", "ip6tnl", "ovpn", "ppp"};
    static const char *modems[] = {"wwan", "wwp", "rmnet", "ccmni"};
    if (type == ARPHRD_LOOPBACK) { return TERN_NETWORK_LOOPBACK; }
    for (size_t i = 0; i < sizeof(modems) / sizeof(*modems); i++) {
        if (starts_with(name, modems[i]) || starts_with(driver, modems[i])) { return TERN_NETWORK_CELLULAR; }
    }
    for (size_t i = 0; i < sizeof(tunnels) / sizeof(*tunnels); i++) {
        if (starts_with(driver, tunnels[i])) { return TERN_NETWORK_VPN; }
    }
    if (type == ARPHRD_RAWIP) { return TERN_NETWORK_CELLULAR; }
    if (type == ARPHRD_NONE || type == ARPHRD_PPP || type == ARPHRD_TUNNEL || type == ARPHRD_TUNNEL6) {
        return TERN_NETWORK_VPN;
    }
    if (type != ARPHRD_ETHER) { return TERN_NETWORK_OTHER; }
    if (is_wireless(name)) { return TERN_NETWORK_WIFI; }
    // A container's Ethernet is one end of a veth pair. Bridges and their like lead to networks inside this host.
    if (*driver == 0 || strcmp(driver, "veth") == 0 || strcmp(driver, "vlan") == 0 || strcmp(driver, "bond") == 0
        || strcmp(driver, "macvlan") == 0 || strcmp(driver, "ipvlan") == 0) {
        return TERN_NETWORK_WIRED;
    }
    return TERN_NETWORK_OTHER;
}

/// Copies a string attribute, which need not end with a zero.
static void copy_text(char *destination, size_t capacity, const struct rtattr *attribute) {
    size_t length = strnlen((const char *)RTA_DATA(attribute), RTA_PAYLOAD(attribute));
    if (length >= capacity) { length = capacity - 1; }
    memcpy(destination, RTA_DATA(attribute), length);
    destination[length] = 0;
}

static void read_link(struct nlmsghdr *message, reading *into) {
    if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg))) { return; }
    if (into->interface_count >= into->interface_capacity) { return; }
    const struct ifinfomsg *info = NLMSG_DATA(message);
    tern_network_interface found = {0};
    char driver[32] = "";
    int left = (int)IFLA_PAYLOAD(message);
    for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFLA_IFNAME) {
            copy_text(found.name, sizeof(found.name), a);
        } else if (a->rta_type == IFLA_LINKINFO) {
            int rest = (int)RTA_PAYLOAD(a);
            for (struct rtattr *b = RTA_DATA(a); RTA_OK(b, rest); b = RTA_NEXT(b, rest)) {
                if (b->rta_type == IFLA_INFO_KIND) { copy_text(driver, sizeof(driver), b); }
            }
        }
    }
    if (info->ifi_index <= 0 || found.name[0] == 0) { return; }
    found.index = (uint32_t)info->ifi_index;
    found.is_running = (info->ifi_flags & IFF_UP) != 0 && (info->ifi_flags & IFF_RUNNING) != 0;
    found.kind = kind_of(info->ifi_type, driver, found.name);
    into->interfaces[into->interface_count++] = found;
}

static void read_address(struct nlmsghdr *message, reading *into) {
    if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifaddrmsg))) { return; }
    if (into->address_count >= into->address_capacity) { return; }
    const struct ifaddrmsg *info = NLMSG_DATA(message);
    uint32_t flags = info->ifa_flags;
    const struct rtattr *chosen = NULL;
    int left = (int)IFA_PAYLOAD(message);
    for (struct rtattr *a = IFA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFA_FLAGS && RTA_PAYLOAD(a) >= sizeof(flags)) { memcpy(&flags, RTA_DATA(a), sizeof(flags)); }
        // On a point-to-point link IFA_ADDRESS is the other end's.
        if (a->rta_type == IFA_LOCAL || (a->rta_type == IFA_ADDRESS && chosen == NULL)) { chosen = a; }
    }
    // One that is still being checked, or was found to be another host's, cannot be sent from.
    if (chosen == NULL || (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0) { return; }
    tern_network_address found = {.index = info->ifa_index};
    const uint8_t *bytes = RTA_DATA(chosen);
    if (info->ifa_family == AF_INET && RTA_PAYLOAD(chosen) >= 4) {
        found.address.family = 4;
        for (int i = 0; i < 4; i++) { found.address.low = found.address.low << 8 | bytes[i]; }
    } else if (info->ifa_family == AF_INET6 && RTA_PAYLOAD(chosen) >= 16) {
        found.address.family = 6;
        for (int i = 0; i < 8; i++) {
            found.address.high = found.address.high << 8 | bytes[i];
            found.address.low = found.address.low << 8 | bytes[8 + i];
        }
        // fe80::/10 needs to say which link.
        if (found.address.high >> 54 == 0x3fa) { found.address.scope_id = info->ifa_index; }
    } else {
        return;
    }
    into->addresses[into->address_count++] = found;
}

/// Asks for all objects of a kind. `*interrupted` tells that they changed meanwhile, so that what came is no snapshot.
static int dump(int descriptor, uint16_t type, uint32_t sequence, reading *into, bool *interrupted) {
    struct {
        struct nlmsghdr header;
        struct rtgenmsg body;
    } request = {0};
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(request.body));
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.header.nlmsg_seq = sequence;
    request.body.rtgen_family = AF_UNSPEC;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (sendto(descriptor, &request, request.header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
        return errno;
    }
    _Alignas(struct nlmsghdr) char buffer[32768];
    for (;;) {
        struct sockaddr_nl sender = {0};
        socklen_t length = sizeof(sender);
        ssize_t count = recvfrom(descriptor, buffer, sizeof(buffer), 0, (struct sockaddr *)&sender, &length);
        if (count < 0) {
            if (errno == EINTR) { continue; }
            return errno;
        }
        if (sender.nl_pid != 0) { continue; }
        int left = (int)count;
        for (struct nlmsghdr *m = (struct nlmsghdr *)buffer; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            if (m->nlmsg_seq != sequence) { continue; }
            if ((m->nlmsg_flags & NLM_F_DUMP_INTR) != 0) { *interrupted = true; }
            switch (m->nlmsg_type) {
            case NLMSG_DONE: return 0;
            case NLMSG_ERROR: {
                if (m->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr))) { return EPROTO; }
                int error = ((struct nlmsgerr *)NLMSG_DATA(m))->error;
                return error == 0 ? 0 : -error;
            }
            case RTM_NEWLINK: read_link(m, into); break;
            case RTM_NEWADDR: read_address(m, into); break;
            default: break;
            }
        }
    }
}

int32_t tern_networks_read(
    tern_network_interface *interfaces, size_t interface_capacity, size_t *interface_count,
    tern_network_address *addresses, size_t address_capacity, size_t *address_count) {
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (descriptor < 0) { return errno; }
    // The kernel answers at once; a second is for the case that it does not.
    struct timeval limit = {.tv_sec = 1};
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    int error = 0;
    bool interrupted = true;
    for (uint32_t attempt = 0; attempt < 3 && interrupted && error == 0; attempt++) {
        reading into = {interfaces, interface_capacity, 0, addresses, address_capacity, 0};
        interrupted = false;
        error = dump(descriptor, RTM_GETLINK, 2 * attempt + 1, &into, &interrupted);
        if (error == 0) { error = dump(descriptor, RTM_GETADDR, 2 * attempt + 2, &into, &interrupted); }
        *interface_count = into.interface_count;
        *address_count = into.address_count;
    }
    close(descriptor);
    return error;
}

int32_t tern_networks_watch(int32_t *descriptor) {
    int opened = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (opened < 0) { return errno; }
    struct sockaddr_nl local = {.nl_family = AF_NETLINK};
    local.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
    if (bind(opened, (struct sockaddr *)&local, sizeof(local)) != 0) {
        int error = errno;
        close(opened);
        return error;
    }
    // What overflows is of no interest: any word suffices. Without this, reads would fail with ENOBUFS.
    int on = 1;
    setsockopt(opened, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on));
    *descriptor = opened;
    return 0;
}

#else

int32_t tern_networks_read(
    tern_network_interface *interfaces, size_t interface_capacity, size_t *interface_count,
    tern_network_address *addresses, size_t address_capacity, size_t *address_count) {
    (void)interfaces; (void)interface_capacity; (void)addresses; (void)address_capacity;
    *interface_count = 0;
    *address_count = 0;
    return ENOTSUP;
}

int32_t tern_networks_watch(int32_t *descriptor) {
    (void)descriptor;
    return ENOTSUP;
}

#endif
