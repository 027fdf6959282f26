enum { CONVOLVE, SUM, MAXIMUM, ADD, MOVE, SCALE, RESCALE, HOLD, FIRE };

typedef struct {
    int kind, in, in2, out, size;          /* values read and written: places in value[] */
    int depth, constant;                   /* when it is active: see moment(); constant: computed once per image */
    int c, h, w, f, y, x;                  /* channels, rows, columns of what is read and of what is written */
    int kh, kw, sh, sw, ph, pw, dh, dw, g; /* kernel, stride, padding, dilation, groups */
    int inner, count;                      /* value n has the parameters with index (n / inner) % count */
    int low, high, memory, late, zero;     /* least and largest number of units sent; see fire() */
    int state;                             /* place in state[] */
    const weight_t *weight;                /* f x c / g x kh x kw */
    const int32_t *first, *second;         /* bias; table; factor; multiplier, shift; threshold, initial */
} op_t;
