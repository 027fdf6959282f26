// The kernels themselves, compiled once per instruction set (see layer_*.cpp); everything here has internal linkage.
//
// A work item is a tile of output rows of one image, of some channels where sums are looked up. It walks through time; in
// each frame the sum of the weights that each output pixel's spikes select is the current, which goes into the membrane at
// once. Sums of weights are exact in any order (weights are on a grid); all else follows the order of the torch path.

#include "layer_standard.h"
#include "layer_vectors.h"
#include "layer_bits.h"
#include "layer_decode.h"
#include "layer_window.h"
#include "layer_sinks.h"
#include "layer_integers.h"
#include "layer_tables.h"
#include "layer_lists.h"
#include "layer_sums.h"
#include "layer_columns.h"
#include "layer_pointwise.h"
#include "layer_tile.h"
#include "layer_depthwise.h"
#include "layer_convolve.h"
#include "layer_neurons.h"
#include "layer_trials.h"
#include "layer_products.h"
#include "layer_run.h"
#include "layer_pools.h"
#include "window_neurons.h"

namespace snn {

const Kernels SNN_KERNELS = {run_layer, run_max_pool, run_sum_pool, run_expand, run_condense, run_parts, run_windows,
                            run_trials, run_products};

}  // namespace snn
