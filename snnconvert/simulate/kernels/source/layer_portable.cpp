// The kernels for any processor.
#define SNN_KERNELS kPortable
#include "layer_kernels.h"
