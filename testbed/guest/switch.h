/* How the guest switches the simulator's model: an instruction with a number that does nothing on any real machine (simulator/simulator.h). */
#ifdef __aarch64__
#define SWITCH_INSTRUCTION(operand) "movz xzr, #0x4e00 + " operand ", lsl #48"
#else
#define SWITCH_INSTRUCTION(operand) ".byte 0x0f,0x1f,0x80," operand ",0x4d,0x55,0x4e"
#endif
#define SWITCH(n) __asm__ volatile(SWITCH_INSTRUCTION("%c0")::"i"(n) : "memory")
enum { TURN_ON = 1, TURN_OFF, ENTER, LEAVE, ENTER_ALL, WATCH }; /* as in simulator/simulator.h */
