// A SYN is answered with a SYN cookie before the kernel has seen it: what the gate would have to do itself if it did not leave that to
// the kernel. For measuring only; the gate does not use it. Built by `bench cookies`.
//
// The kernel makes the cookie (bpf_tcp_raw_gen_syncookie_ipv4 and _ipv6, since Linux 6.0) and knows it again when the ACK comes. The
// answer carries the one option the kernel's own cookies carry where nobody asks for time stamps: the segment size.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SECTION(name) __attribute__((section(name), used))
#define swap16(number) __builtin_bswap16(number)
#define swap32(number) __builtin_bswap32(number)

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct ethernet {
    u8 to[6], from[6];
    u16 type;
} __attribute__((packed));

struct ipv4 {
    u8 version, service;
    u16 bytes, id, fragment;
    u8 ttl, protocol;
    u16 checksum;
    u32 from, to;
};

struct ipv6 {
    u32 version;
    u16 bytes;
    u8 protocol, hops;
    u32 from[4], to[4];
};

struct tcp {
    u16 from, to;
    u32 sequence, acknowledged;
    u8 offset, flags;
    u16 window, checksum, urgent;
    u8 options[40];
};

enum { ABORTED = 0, DROP = 1, PASS = 2, TX = 3 };
enum { HEADER = 20, HEADER_MAX = 60, ANSWER = 24, SYN = 2, SYN_ACK = 0x12 };

static s64 (*const raw_cookie4)(struct ipv4 *, struct tcp *, u32) = (void *)204;
static s64 (*const raw_cookie6)(struct ipv6 *, struct tcp *, u32) = (void *)205;
static s64 (*const adjust_tail)(struct xdp_md *, int) = (void *)65;

static const char LICENSE[] SECTION("license") = "Dual MIT/GPL";

static __attribute__((always_inline)) u32 sum(const void *from, u32 bytes) {
    u32 total = 0;
    for (u32 at = 0; at < bytes / 2; at++)
        total += ((const u16 *)from)[at];
    return total;
}

static __attribute__((always_inline)) u16 folded(u32 total) {
    total = (total & 0xffff) + (total >> 16);
    return ~((total & 0xffff) + (total >> 16));
}

static __attribute__((always_inline)) void turn(struct ethernet *link) {
    for (int at = 0; at < 6; at++) {
        u8 from = link->from[at];
        link->from[at] = link->to[at];
        link->to[at] = from;
    }
}

static __attribute__((always_inline)) void answer(struct tcp *tcp, s64 cookie) {
    u16 from = tcp->from;
    tcp->from = tcp->to;
    tcp->to = from;
    tcp->acknowledged = swap32(swap32(tcp->sequence) + 1);
    tcp->sequence = swap32((u32)cookie);
    tcp->offset = ANSWER / 4 << 4;
    tcp->flags = SYN_ACK;
    tcp->window = swap16(0xffff);
    tcp->checksum = 0;
    tcp->urgent = 0;
    u32 size = (u32)(cookie >> 32) & 0xffff;
    tcp->options[0] = 2;
    tcp->options[1] = 4;
    tcp->options[2] = size >> 8;
    tcp->options[3] = size;
}

// The helpers want a TCP header of the size that is stated, and the verifier one of the greatest.
static __attribute__((always_inline)) int stretch(struct xdp_md *context, u32 network, u32 *bytes) {
    void *data = (void *)(u64)context->data, *end = (void *)(u64)context->data_end;
    struct tcp *tcp = data + sizeof(struct ethernet) + network;
    if ((void *)tcp + HEADER > end || tcp->flags != SYN)
        return 0;
    *bytes = (tcp->offset >> 4) * 4;
    if (*bytes < HEADER || *bytes > HEADER_MAX)
        return 0;
    u32 held = context->data_end - context->data - sizeof(struct ethernet) - network;
    return adjust_tail(context, HEADER_MAX - (int)held) == 0;
}

static __attribute__((always_inline)) int finish(struct xdp_md *context) {
    return adjust_tail(context, ANSWER - HEADER_MAX) ? ABORTED : TX;
}

static __attribute__((always_inline)) int answer4(struct xdp_md *context) {
    u32 bytes;
    if (!stretch(context, sizeof(struct ipv4), &bytes))
        return PASS;
    void *data = (void *)(u64)context->data, *end = (void *)(u64)context->data_end;
    struct ethernet *link = data;
    struct ipv4 *ip = data + sizeof(*link);
    struct tcp *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > end)
        return ABORTED;
    s64 cookie = raw_cookie4(ip, tcp, bytes);
    if (cookie < 0)
        return ABORTED;
    turn(link);
    answer(tcp, cookie);
    u32 from = ip->from;
    ip->from = ip->to;
    ip->to = from;
    ip->bytes = swap16(sizeof(*ip) + ANSWER);
    ip->fragment = swap16(0x4000);
    ip->ttl = 64;
    ip->checksum = 0;
    ip->checksum = folded(sum(ip, sizeof(*ip)));
    tcp->checksum = folded(sum(&ip->from, 8) + swap16(6) + swap16(ANSWER) + sum(tcp, ANSWER));
    return finish(context);
}

static __attribute__((always_inline)) int answer6(struct xdp_md *context) {
    u32 bytes;
    if (!stretch(context, sizeof(struct ipv6), &bytes))
        return PASS;
    void *data = (void *)(u64)context->data, *end = (void *)(u64)context->data_end;
    struct ethernet *link = data;
    struct ipv6 *ip = data + sizeof(*link);
    struct tcp *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > end)
        return ABORTED;
    s64 cookie = raw_cookie6(ip, tcp, bytes);
    if (cookie < 0)
        return ABORTED;
    turn(link);
    answer(tcp, cookie);
    for (int at = 0; at < 4; at++) {
        u32 from = ip->from[at];
        ip->from[at] = ip->to[at];
        ip->to[at] = from;
    }
    ip->bytes = swap16(ANSWER);
    ip->hops = 64;
    tcp->checksum = folded(sum(ip->from, 32) + swap16(6) + swap16(ANSWER) + sum(tcp, ANSWER));
    return finish(context);
}

SECTION("xdp") int cookies(struct xdp_md *context) {
    void *data = (void *)(u64)context->data, *end = (void *)(u64)context->data_end;
    struct ethernet *link = data;
    struct ipv4 *four = data + sizeof(*link);
    struct ipv6 *six = data + sizeof(*link);
    if ((void *)(four + 1) > end)
        return PASS;
    if (link->type == swap16(0x0800))
        return four->version == 0x45 && four->protocol == 6 ? answer4(context) : PASS;
    if (link->type == swap16(0x86dd) && (void *)(six + 1) <= end)
        return six->protocol == 6 ? answer6(context) : PASS;
    return PASS;
}

SECTION("xdp") int drop(struct xdp_md *context) {
    return DROP;
}

SECTION("xdp") int pass(struct xdp_md *context) {
    return PASS;
}
