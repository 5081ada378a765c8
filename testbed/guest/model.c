/* `model on`, `model off`: switches the simulator's model from a shell in the guest, to time a program of one's own. */
#include <stdio.h>
#include <string.h>

#define SWITCH(n) __asm__ volatile(".byte 0x0f,0x1f,0x80,%c0,0x4d,0x55,0x4e" ::"i"(n) : "memory")
enum { TURN_ON = 1, TURN_OFF, ENTER, LEAVE, ENTER_ALL }; /* as in simulator/simulator.h */

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "on")) {
        SWITCH(TURN_ON);
        SWITCH(ENTER_ALL);
    } else if (argc == 2 && !strcmp(argv[1], "off"))
        SWITCH(TURN_OFF);
    else
        return fprintf(stderr, "usage: model on|off\n"), 2;
    return 0;
}
