/* What nb_window.h works out of a window's batches, for Python to hold against scipy. */
#include "nb_window.h"

void fill(uint32_t *bins, const uint64_t *took, uint64_t n, uint64_t usual)
{
    for (uint64_t i = 0; i < n; i++)
        bins[nb_batch_bin(took[i], usual)]++;
}

double middle(uint32_t bin)
{
    return nb_batch_middle(bin);
}

double mean(const uint32_t *bins, uint64_t n)
{
    return nb_mean_batch(bins, n);
}

double median(const uint32_t *bins, uint64_t n)
{
    return nb_median_batch(bins, n);
}
