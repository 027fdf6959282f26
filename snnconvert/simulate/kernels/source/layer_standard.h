// Standard headers, read before any target attribute is switched on: inline functions of theirs stay portable.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "layer.h"
