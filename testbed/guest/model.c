/* `model on`, `model off`: switches the simulator's model from a shell in the guest, to time a program of one's own. */
#include "switch.h"
#include <stdio.h>
#include <string.h>

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
