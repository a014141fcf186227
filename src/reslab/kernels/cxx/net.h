// The nodes of a trunk, their memory, and the work that threads share.
#pragma once

#include <stdlib.h>
#include <sys/mman.h>

#include <memory>
#include <new>

#include "threads.h"
#include "winograd.h"

constexpr int CHUNK = 8;  // images
constexpr int STAGES = 3;

// Zeroed memory in large pages where the system has them: it is used again in every iteration.
template <class Number>
class Memory {
public:
    void resize(size_t count) {
        constexpr size_t PAGE = 1 << 21;
        const size_t bytes = (count * sizeof(Number) + 256 + PAGE - 1) & ~(PAGE - 1);
        numbers.reset((Number*)aligned_alloc(PAGE, bytes));
        if (!numbers) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(numbers.get(), bytes, MADV_HUGEPAGE);
#endif
        std::memset((void*)numbers.get(), 0, bytes);
    }
    operator Number*() const { return numbers.get(); }

private:
    struct Free {
        void operator()(Number* numbers) { free(numbers); }
    };
    std::unique_ptr<Number, Free> numbers;
};

enum Shortcut { NONE, UNWEIGHTED, PROJECTION };  // UNWEIGHTED: the identity, or option A

struct Node {
    Conv conv{}, projection{};
    Shortcut shortcut = NONE;  // from two nodes before
    int side = 0, channels = 0;
    Memory<Stored> a, z, projected;

    size_t padded() const { return size_t(side + 2) * (side + 2) * channels; }
    size_t pixels() const { return size_t(side) * side; }
    size_t plain() const { return pixels() * channels; }
    // If `a` is not kept, the backward pass computes it again from z, which is cheaper than
    // writing and reading it.
    bool kept() const { return a; }
};

// The memory of one thread. The maps keep their border of zeros.
struct Workspace {
    Memory<Stored> a[STAGES], dz[STAGES], scratch;
    Memory<float> values[3], weight_sums;  // of Winograd's convolution
};

// The images of a chunk whose tiles are multiplied together in Winograd's convolution. Small maps
// alone have too few tiles to make up for loading the weights.
struct TileBatch {
    const int tiles;      // per image
    const int position;   // of the current image in the batch
    const int images;     // so far, with the current one
    const bool complete;  // the current image is the last

    static int most(const Conv& conv) {
        constexpr int WANTED = 32;  // tiles
        return std::clamp(WANTED / std::max(conv.tiles(), 1), 1, CHUNK);
    }
    static size_t size(const Conv& conv) {
        return values_size(most(conv) * conv.tiles(), conv.in);
    }
    TileBatch(const Conv& conv, int image, int all)
        : tiles(conv.tiles()),
          position(image % CHUNK % most(conv)),
          images(position + 1),
          complete(images == most(conv) || (image + 1) % CHUNK == 0 || image + 1 == all) {}
};

struct Trunk {
    int side = 0, images = 0, threads = 1;
    std::vector<Node> nodes;
    std::vector<Workspace> workspaces;
    Memory<Stored> gradients[3];   // g of node i is in number i % 3
    std::vector<double> sums;      // [chunk][3][MOST_CHANNELS]
    Memory<float> weight_sums[2];  // [chunk][weights]: of a convolution, of a projection
    Memory<float> weight_values;   // of the current convolution, if it is Winograd's

    int chunks() const { return (images + CHUNK - 1) / CHUNK; }
    int stage(const Node& node) const {
        return node.side == side ? 0 : 2 * node.side == side ? 1 : 2;
    }
    Stored* a_of(int number, size_t image, const Workspace& workspace, int slot = 0) const {
        const Node& node = nodes[number];
        if (node.kept()) return node.a + image * node.padded();
        return workspace.a[stage(node)] + slot * node.padded();
    }
    Stored* g_of(int node, size_t image) const {
        return gradients[node % 3] + image * nodes[node].plain();
    }
    double* sums_of(int chunk) { return &sums[size_t(chunk) * 3 * MOST_CHANNELS]; }

    // Call `work(image, chunk, workspace)` for all images: chunks in parallel, a chunk in order.
    template <class Work>
    void for_each_image(Work work) {
        in_parallel(chunks(), threads, [&](int chunk) {
            Workspace& workspace = workspaces[omp_get_thread_num()];
            std::fill_n(sums_of(chunk), 3 * MOST_CHANNELS, 0.0);
            const int end = std::min(images, (chunk + 1) * CHUNK);
            for (int image = chunk * CHUNK; image < end; image++) work(image, chunk, workspace);
        });
    }

    // Return the sums over all chunks, [3][MOST_CHANNELS].
    std::vector<double> total() {
        std::vector<double> all(3 * MOST_CHANNELS);
        for (int chunk = 0; chunk < chunks(); chunk++)
            for (size_t k = 0; k < all.size(); k++) all[k] += sums_of(chunk)[k];
        return all;
    }
};

// Call `work(in, out)` with the channels of a convolution as constants.
template <class Work>
static void with_channels(const Conv& conv, Work work) {
    using std::integral_constant;
    auto call = [&](auto in, auto out) {
        if (conv.in == in && conv.out == out) work(in, out);
    };
    integral_constant<int, 4> image;
    integral_constant<int, 16> first;
    integral_constant<int, 32> second;
    integral_constant<int, 64> third;
    call(image, first), call(first, first);
    call(first, second), call(second, second);
    call(second, third), call(third, third);
}

// The tensors of a convolution and its batch norm, as Python passes them.
struct Tensors {
    const float *weight, *gamma, *beta;
    float *running_mean, *running_variance;
};
struct Gradients {
    float *weight, *gamma, *beta;
};
