// A loop that threads share.
#pragma once

#include <immintrin.h>
#include <omp.h>

// Call `work(k)` for each k below `count`. Each thread takes neighbouring numbers, in order. All
// threads treat denormal numbers as the calling one does, so bits do not depend on their number.
template <class Work>
static void in_parallel(int count, int threads, Work work) {
    const unsigned mode = _mm_getcsr();  // whether denormal numbers count as zero
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int k = 0; k < count; k++) {
        _mm_setcsr(mode);
        work(k);
    }
}
