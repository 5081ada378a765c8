/* Instructions of x86-64 as overlap.c needs them: by which registers memory is addressed, which registers a result comes from, and into which it goes.
 *
 * Registers are the sixteen general ones, a bit each. Vectors, masks and flags are none: what comes from them is ready. An instruction that is not
 * known here has the flag UNKNOWN. Lengths are QEMU's to know. */
#include "simulator.h"

enum { RAX = 1, RCX = 2, RDX = 4, RSP = 16, RBP = 32 };
enum { MAP_38 = 2, MAP_3A }; /* opcode maps; 1 is 0f */

struct code {
    const uint8_t *at;            /* the opcode, ModRM behind it */
    unsigned rex, vvvv, map;      /* rex: its four low bits, whatever prefix they stand in */
    bool prefixed, narrow, repeat, lock, vector; /* by REX; 66; f3; f0; VEX or EVEX */
    int group;                    /* the reg field of ModRM without REX */
    bool memory;                  /* ModRM says so */
    uint16_t reg, rm, address;    /* masks; rm: 0 for memory */
};

static struct code read_prefixes(const uint8_t *p)
{
    struct code c = {0};
    for (;; p++)
        if (*p == 0x66)
            c.narrow = true;
        else if (*p == 0xf3)
            c.repeat = true;
        else if (*p == 0xf0)
            c.lock = true;
        else if (*p != 0xf2 && *p != 0x2e && *p != 0x36 && *p != 0x3e && *p != 0x26 && *p != 0x64 && *p != 0x65 && *p != 0x67)
            break;
    if (*p >> 4 == 4)
        c.rex = *p++ & 15, c.prefixed = true;
    if (*p == 0xc5) {
        c.rex = p[1] & 0x80 ? 0 : 4, c.vvvv = ~p[1] >> 3 & 15, c.narrow = (p[1] & 3) == 1, c.map = 1, c.vector = true;
        p += 2;
    } else if (*p == 0xc4 || *p == 0x62) {
        const uint8_t more = p[2];
        c.rex = ~p[1] >> 5 & 7, c.map = p[1] & 7, c.vvvv = ~more >> 3 & 15, c.narrow = (more & 3) == 1, c.vector = true;
        p += *p == 0xc4 ? 3 : 4;
    } else if (*p == 0x0f) {
        c.map = p[1] == 0x38 ? MAP_38 : p[1] == 0x3a ? MAP_3A : 1;
        p += c.map == 1 ? 1 : 2;
    }
    c.at = p;
    return c;
}

/* What ModRM and SIB name. `bytes`: the operands are bytes, of which 4 to 7 without a prefix are the second ones of the first four. */
static void read_operands(struct code *c, bool bytes)
{
    const unsigned mode = c->at[1] >> 6, low = c->at[1] & 7, high = c->at[1] >> 3 & 7, base = c->at[2] & 7;
    const unsigned index = (c->at[2] >> 3 & 7) | (c->rex & 2) << 2;
    const unsigned keep = bytes && !c->prefixed && !c->vector ? 3 : 15;
    const bool of_vectors = c->vector && c->map == MAP_38 && ((c->at[0] & 0xfc) == 0x90 || (c->at[0] & 0xfc) == 0xa0); /* gathers, scatters */
    c->group = high;
    c->reg = 1u << ((high | (c->rex & 4) << 1) & keep);
    c->memory = mode != 3;
    c->rm = c->address = 0;
    if (!c->memory)
        c->rm = 1u << ((low | (c->rex & 1) << 3) & keep);
    else if (low != 4)
        c->address = mode || low != 5 ? 1u << (low | (c->rex & 1) << 3) : 0; /* or by the instruction pointer */
    else
        c->address = (mode || base != 5 ? 1u << (base | (c->rex & 1) << 3) : 0) | (index != 4 && !of_vectors ? 1u << index : 0);
}

static struct form form(uint16_t address, uint16_t source, uint16_t target, unsigned flags)
{
    return (struct form){address, source, target, flags};
}

/* `source` and ModRM's operand make `target`. */
static struct form reads(const struct code *c, uint16_t source, uint16_t target)
{
    return form(c->address, source | c->rm, target, c->memory ? MEMORY : 0);
}

/* `source` goes to ModRM's operand; `kept`: its old value has a part in the new one. */
static struct form writes(const struct code *c, uint16_t source, bool kept)
{
    return form(c->address, source | (kept ? c->rm : 0), c->rm, c->memory ? MEMORY | (kept ? UPDATES : 0) : 0);
}

static struct form decode_vector(struct code *c)
{
    const uint8_t op = c->at[0];
    const uint16_t third = c->vector ? 1u << c->vvvv : 0;
    if (c->map == 1 && op == 0x77) /* emms, vzeroupper */
        return form(0, 0, 0, 0);
    read_operands(c, false);
    if (c->vector && c->map == MAP_38 && op >= 0xf2 && op <= 0xf7)
        return op == 0xf3 ? reads(c, 0, third) : reads(c, third | (op == 0xf6 ? RDX : 0), c->reg | (op == 0xf6 ? third : 0));
    if (c->map == MAP_3A && op == 0xf0 && c->vector)
        return reads(c, 0, c->reg);
    if (!c->vector && c->map == MAP_38 && op >= 0xf0)
        return form(0, 0, 0, UNKNOWN);
    struct form f = form(c->address, 0, 0, c->memory ? MEMORY : 0);
    const bool to_general = c->map == 1 && (op == 0x50 || op == 0xd7 || op == 0xc5 || op == 0x2c || op == 0x2d || (op == 0x93 && c->vector));
    const bool to_operand = (c->map == 1 && op == 0x7e && !c->repeat) || (c->map == MAP_3A && op >= 0x14 && op <= 0x17);
    f.target = to_general ? c->reg : to_operand ? c->rm : 0;
    f.flags |= c->memory && c->map == 1 && (op == 0xe7 || op == 0x2b) ? PAST : 0;
    return f;
}

static struct form decode_0f(struct code *c)
{
    const uint8_t op = c->at[0], next = c->at[1];
    if (op == 0x31) /* rdtsc */
        return form(0, 0, RAX | RDX, 0);
    if (op == 0x01 && next == 0xf9) /* rdtscp */
        return form(0, 0, RAX | RDX | RCX, FENCE);
    if (op == 0xae && next >> 6 == 3 && (next >> 3 & 7) >= 5 && !c->repeat)
        return form(0, 0, 0, FENCE);
    if (op == 0x0d || (op >= 0x18 && op <= 0x1f) || op >> 4 == 8) /* hints, jumps */
        return form(0, 0, 0, 0);
    if (op >> 3 == 0xc8 >> 3)
        return form(0, 1u << ((op & 7) | (c->rex & 1) << 3), 1u << ((op & 7) | (c->rex & 1) << 3), 0);
    read_operands(c, op >> 4 == 9 || op == 0xb6 || op == 0xbe || op == 0xb0 || op == 0xc0);
    switch (op) {
    case 0x40 ... 0x4f: /* cmov */
    case 0xaf:          /* imul */
    case 0xb8:
    case 0xbc:
    case 0xbd: /* popcnt, bit scans */
        return reads(c, c->reg, c->reg);
    case 0xb6:
    case 0xbe: /* movzx, movsx: the target is no byte */
        return reads(c, 0, 1u << (c->group | (c->rex & 4) << 1));
    case 0xb7:
    case 0xbf:
        return reads(c, 0, c->reg);
    case 0x90 ... 0x9f: /* setcc */
        return writes(c, 0, !c->memory);
    case 0xa3: /* bt */
        return reads(c, c->reg, 0);
    case 0xab:
    case 0xb3:
    case 0xbb: /* bts, btr, btc */
        return writes(c, c->reg, true);
    case 0xba:
        return c->group == 4 ? reads(c, 0, 0) : writes(c, 0, true);
    case 0xa4:
    case 0xa5:
    case 0xac:
    case 0xad: /* double shifts */
        return writes(c, c->reg | (op & 1 ? RCX : 0), true);
    case 0xb0:
    case 0xb1: /* cmpxchg */
        return form(c->address, c->reg | c->rm | RAX, c->rm | RAX, c->memory ? MEMORY | UPDATES : 0);
    case 0xc0:
    case 0xc1: /* xadd */
        return form(c->address, c->reg | c->rm, c->rm | c->reg, c->memory ? MEMORY | UPDATES : 0);
    case 0xc3: /* movnti */
        return form(c->address, c->reg, 0, MEMORY | PAST);
    case 0x10 ... 0x17:
    case 0x28 ... 0x2f:
    case 0x50 ... 0x7f:
    case 0xc2:
    case 0xc4 ... 0xc6:
    case 0xd0 ... 0xfe:
        return decode_vector(c);
    default:
        return form(0, 0, 0, UNKNOWN);
    }
}

static struct form decode_plain(struct code *c)
{
    const uint8_t op = c->at[0];
    const bool bytes = !(op & 1);
    const uint16_t low = 1u << ((op & 7) | (c->rex & 1) << 3);
    switch (op) {
    case 0x00 ... 0x3f: /* arithmetic; 38 on: cmp */
        if ((op & 7) >= 6)
            return form(0, 0, 0, UNKNOWN);
        if ((op & 7) >= 4)
            return form(0, RAX, op >> 3 == 7 ? 0 : RAX, 0);
        read_operands(c, bytes);
        if (op >> 3 == 7)
            return reads(c, c->reg, 0);
        if (((op & ~3) == 0x30 || (op & ~3) == 0x28) && c->rm == c->reg) /* xor, sub of a register by itself */
            return form(0, 0, c->reg, 0);
        return op & 2 ? reads(c, c->reg, c->reg) : writes(c, c->reg, true);
    case 0x50 ... 0x57:
        return form(RSP, low, 0, MEMORY);
    case 0x58 ... 0x5f:
        return form(RSP, 0, low, MEMORY);
    case 0x68:
    case 0x6a: /* push */
    case 0xc2:
    case 0xc3: /* ret */
    case 0xe8: /* call */
        return form(RSP, 0, 0, MEMORY);
    case 0x63: /* movsxd */
    case 0x69:
    case 0x6b: /* imul */
        return read_operands(c, false), reads(c, 0, c->reg);
    case 0x70 ... 0x7f:
    case 0x90:
    case 0x9b:
    case 0xa8:
    case 0xa9:
    case 0xe0 ... 0xe3:
    case 0xe9:
    case 0xeb:
    case 0xf5:
    case 0xf8:
    case 0xf9:
    case 0xfc:
    case 0xfd: /* jumps, nop, test, flags */
        return form(0, 0, 0, 0);
    case 0x80:
    case 0x81:
    case 0x83:
        return read_operands(c, bytes), c->group == 7 ? reads(c, 0, 0) : writes(c, 0, true);
    case 0x84:
    case 0x85:
        return read_operands(c, bytes), reads(c, 0, 0);
    case 0x86:
    case 0x87: /* xchg */
        read_operands(c, bytes);
        return form(c->address, c->reg | c->rm, c->reg | c->rm, c->memory ? MEMORY | UPDATES : 0);
    case 0x88:
    case 0x89:
        return read_operands(c, bytes), writes(c, c->reg, (bytes || c->narrow) && !c->memory);
    case 0x8a:
    case 0x8b:
        return read_operands(c, bytes), reads(c, bytes || c->narrow ? c->reg : 0, c->reg);
    case 0x8d: /* lea */
        return read_operands(c, false), form(0, c->address, c->reg, 0);
    case 0x91 ... 0x97:
        return form(0, low | RAX, low | RAX, 0);
    case 0x98:
        return form(0, RAX, RAX, 0);
    case 0x99:
        return form(0, RAX, RDX, 0);
    case 0xb0 ... 0xb7: /* a byte of a register */
        return form(0, 0, 0, 0);
    case 0xb8 ... 0xbf:
        return form(0, 0, low, 0);
    case 0xc0:
    case 0xc1:
    case 0xd0 ... 0xd3: /* shifts */
        return read_operands(c, bytes), writes(c, op >= 0xd2 ? RCX : 0, true);
    case 0xc6:
    case 0xc7:
        return read_operands(c, bytes), writes(c, 0, false);
    case 0xc9: /* leave */
        return form(RBP, 0, RBP, MEMORY);
    case 0xf6:
    case 0xf7:
        read_operands(c, bytes);
        return c->group < 2 ? reads(c, 0, 0) : c->group < 4 ? writes(c, 0, true) : reads(c, RAX | RDX, RAX | RDX);
    case 0xfe:
    case 0xff:
        read_operands(c, bytes);
        if (c->group < 2) /* inc, dec */
            return writes(c, 0, true);
        if (c->group == 2) /* call */
            return form(c->address | RSP, 0, 0, MEMORY);
        if (c->group == 6) /* push */
            return form(c->address | RSP, c->rm, 0, MEMORY | (c->memory ? UPDATES : 0));
        return c->group == 4 ? reads(c, 0, 0) : form(0, 0, 0, UNKNOWN);
    default:
        return form(0, 0, 0, UNKNOWN);
    }
}

struct form decode(const uint8_t *instruction)
{
    struct code c = read_prefixes(instruction);
    struct form f = c.vector || c.map > 1 ? decode_vector(&c) : c.map ? decode_0f(&c) : decode_plain(&c);
    const bool exchange = !c.map && !c.vector && (c.at[0] & 0xfe) == 0x86 && c.memory;
    if (c.lock || exchange)
        f.flags |= ATOMIC;
    return f;
}
