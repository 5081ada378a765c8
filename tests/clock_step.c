/* The step of a clock that only goes on in steps, of so many thousandths of a ns. */
#include <stdint.h>
static uint64_t nb_test_clock(void);
#define NB_CLOCK nb_test_clock
#include "nb_clock.h"

static uint64_t thousandths, real, random_number;

/* Between two readings pass 20 to 83 ns. */
static uint64_t nb_test_clock(void)
{
    random_number = random_number * 6364136223846793005u + 1442695040888963407u;
    real += 20 + random_number % 4194304 / 65536;
    return real * 1000 / thousandths * thousandths / 1000;
}

uint64_t step_of(uint64_t thousandths_of_ns)
{
    thousandths = thousandths_of_ns;
    return nb_clock_step();
}
