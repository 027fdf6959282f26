/* Plain C reference of the network in network.h, in integers alone: what hardware has to reproduce bit for bit.
 *
 *     cc -O2 -o reference reference.c && ./reference < inputs.bin | cmp - golden.bin
 *
 * Reads images (INPUTS values int32 each) and writes for each: per step and neuron layer the membranes after the step
 * and the spikes of the step (int32 each), then the scores (int64). With the argument "scores" it writes the scores alone.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "network.h"

static int64_t value[VALUES], state[STATES];

/* Which of its own steps a site at this depth is at in step t, or -1 where it is silent. */
static int moment(int depth, int t) {
    int since = t - depth * DELAY, frame = since / SPACING, phase = since % SPACING;
    return since < 0 || phase >= STEPS || frame >= FRAMES ? -1 : frame * STEPS + phase;
}

static int64_t clip(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

static int64_t floor_division(int64_t v, int64_t by) { return v / by - (v % by != 0 && v < 0); }

/* Convolutions (fully connected: 1 x 1), spike by spike: each adds the weights of its own synapses. */
static void convolve(const op_t *op, int biased) {
    int channels = op->c / op->g, filters = op->f / op->g;
    for (int n = 0; n < op->size; n++)
        value[op->out + n] = biased && op->first ? op->first[n / op->inner % op->count] : 0;
    for (int n = 0; n < op->c * op->h * op->w; n++) {
        int64_t v = value[op->in + n];
        int c = n / (op->h * op->w), group = c / channels;
        for (int i = 0; v && i < op->kh; i++)
            for (int j = 0; j < op->kw; j++) {
                int y = n / op->w % op->h + op->ph - i * op->dh, x = n % op->w + op->pw - j * op->dw;
                if (y < 0 || x < 0 || y % op->sh || x % op->sw || y / op->sh >= op->y || x / op->sw >= op->x) continue;
                for (int f = group * filters; f < (group + 1) * filters; f++)
                    value[op->out + (f * op->y + y / op->sh) * op->x + x / op->sw] +=
                        v * op->weight[((f * channels + c % channels) * op->kh + i) * op->kw + j];
            }
    }
}

/* Sums and maxima over windows. */
static int64_t pool(const op_t *op, int c, int y, int x) {
    const int64_t *from = op->kind == MAXIMUM && !op->constant ? state + op->state : value + op->in;
    int64_t sum = 0, most = INT64_MIN;
    for (int i = 0; i < op->kh; i++)
        for (int j = 0; j < op->kw; j++) {
            int row = y * op->sh - op->ph + i * op->dh, column = x * op->sw - op->pw + j * op->dw;
            if (row < 0 || row >= op->h || column < 0 || column >= op->w) continue;
            int64_t v = from[(c * op->h + row) * op->w + column];
            sum += v;
            if (v > most) most = v;
        }
    return op->kind == MAXIMUM ? most : sum;
}

/* Neurons: take in, then send. Soft reset, or to zero; `memory`: never takes back more than was sent. */
static void fire(const op_t *op, int t) {
    int in = moment(op->depth - 1, t), out = moment(op->depth, t), phase = out % STEPS;
    int64_t *membrane = state + op->state, *sent = membrane + op->size;
    for (int n = 0; n < op->size; n++) {
        int64_t threshold = op->first[n / op->inner % op->count], units = 0;
        if (in >= 0) membrane[n] = clip(membrane[n] + value[op->in + n], LOWEST, HIGHEST);
        if (out >= 0 && WINDOWED) {
            int64_t carried = POSITIONAL ? 1 << (STEPS - 1 - phase) : ONCE ? STEPS - phase : 1;
            units = carried * ((membrane[n] >= carried * threshold) -
                               (op->low < 0 && membrane[n] < -(carried - 1) * threshold));
        } else if (out >= 0) {
            units = op->late && membrane[n] < 0 ? membrane[n] / threshold : floor_division(membrane[n], threshold);
            if (op->memory && units < -sent[n]) units = -sent[n];
            units = clip(units, op->low, op->high);
        }
        membrane[n] = (op->zero || ONCE) && units ? 0 : membrane[n] - units * threshold;
        if (out >= 0 && WINDOWED && phase == STEPS - 1) {
            if (CLEARED) membrane[n] = op->second[n / op->inner % op->count];
            else if (CLAMPED) membrane[n] = membrane[n] < threshold ? membrane[n] : threshold;
        }
        sent[n] += units;
        value[op->out + n] = units;
    }
}

static void run(const op_t *op, int t) {
    int now = op->constant ? 0 : moment(op->depth, t);
    if (op->kind == FIRE) { fire(op, t); return; }
    if (op->constant && t > 0) return;
    if (now < 0 && op->kind != HOLD) { memset(value + op->out, 0, op->size * sizeof *value); return; }
    if (op->kind == CONVOLVE) { convolve(op, op->constant || now % STEPS == 0); return; }
    if (op->kind == MAXIMUM && !op->constant) /* counts what came in, for a window or for good */
        for (int n = 0; n < op->c * op->h * op->w; n++)
            state[op->state + n] = value[op->in + n] + (WINDOWED && now % STEPS == 0 ? 0 : state[op->state + n]);
    for (int n = 0; n < op->size; n++) {
        int64_t v = value[op->in + n], result = 0, k = op->count ? n / op->inner % op->count : 0;
        int64_t *kept = state + op->state + n;
        switch (op->kind) {
        case SUM: case MAXIMUM:
            result = pool(op, n / (op->y * op->x), n / op->x % op->y, n % op->x);
            if (op->kind == MAXIMUM && !op->constant) { /* sends by how much the largest count has grown */
                int64_t most = result;
                kept += op->c * op->h * op->w;
                result -= WINDOWED && now % STEPS == 0 ? 0 : *kept;
                *kept = most;
            }
            break;
        case ADD: result = v + value[op->in2 + n]; break;
        case MOVE: result = op->first[n] < 0 ? 0 : value[op->first[n]]; break;
        case SCALE: result = v * op->first[k]; break;
        case RESCALE: /* brings constant currents in once a frame */
            if (now % STEPS == 0)
                result = (v * op->first[k] + (op->second[k] ? (int64_t)1 << (op->second[k] - 1) : 0)) >> op->second[k];
            break;
        case HOLD: kept += t % (DELAY > 0 ? DELAY : 1) * op->size; result = *kept; *kept = v; break;
        }
        value[op->out + n] = result;
    }
}

int main(int arguments, char **argument) {
    int scores_only = arguments > 1 && !strcmp(argument[1], "scores");
    static int32_t in[INPUTS];
    while (fread(in, sizeof in, 1, stdin) == 1) {
        int64_t score[SCORES] = {0};
        memset(value, 0, sizeof value), memset(state, 0, sizeof state);
        for (int n = 0; n < INPUTS; n++) value[n] = in[n];
        for (const op_t *op = ops; op < ops + OPS; op++)
            for (int n = 0; op->kind == FIRE && n < op->size; n++)
                state[op->state + n] = op->second[n / op->inner % op->count];
        for (int t = 0; t < TIMESTEPS; t++) {
            for (const op_t *op = ops; op < ops + OPS; op++) {
                run(op, t);
                for (int part = 0; op->kind == FIRE && !scores_only && part < 2; part++)
                    for (int n = 0; n < op->size; n++) {
                        int32_t written = (int32_t)(part ? value[op->out + n] : state[op->state + n]);
                        fwrite(&written, sizeof written, 1, stdout);
                    }
            }
            if (moment(SCORE_DEPTH, t) >= READ_FROM * STEPS)
                for (int n = 0; n < SCORES; n++) score[n] += value[SCORE_AT + n];
        }
        fwrite(score, sizeof score, 1, stdout);
    }
    return 0;
}
