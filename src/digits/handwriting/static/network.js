"use strict";
// Run networks that `digits` exported: the nodes of the ONNX graph, one after another, in float32.
// A tensor is { shape, data }.

const size = (shape) => shape.reduce((product, side) => product * side, 1);

function strides(shape) {
  const steps = new Array(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) steps[axis] = steps[axis + 1] * shape[axis + 1];
  return steps;
}

// Combine two tensors element by element; an axis of 1, or one that is missing, is repeated.
function elementwise(x, y, combine) {
  const rank = Math.max(x.shape.length, y.shape.length);
  const [a, b] = [x, y].map(({ shape }) => [...new Array(rank - shape.length).fill(1), ...shape]);
  const shape = a.map((side, axis) => Math.max(side, b[axis]));
  const [stepA, stepB] = [a, b].map((sides) => strides(sides).map((step, axis) => (sides[axis] === 1 ? 0 : step)));
  const data = new Float32Array(size(shape));
  const at = new Array(rank).fill(0);
  let [i, j] = [0, 0];
  for (let index = 0; index < data.length; index++) {
    data[index] = combine(x.data[i], y.data[j]);
    for (let axis = rank - 1; axis >= 0; axis--) {
      i += stepA[axis];
      j += stepB[axis];
      if (++at[axis] < shape[axis]) break;
      i -= stepA[axis] * shape[axis];
      j -= stepB[axis] * shape[axis];
      at[axis] = 0;
    }
  }
  return { shape, data };
}

const unary = (compute) => ([x]) => ({ shape: x.shape, data: Float32Array.from(x.data, compute) });
const add = (x, y) => elementwise(x, y, (a, b) => a + b);

function transpose([x], { perm }) {
  const steps = strides(x.shape);
  const shape = perm.map((axis) => x.shape[axis]);
  const [a, b, c, d] = perm.map((axis) => steps[axis]);
  const data = new Float32Array(x.data.length);
  let index = 0;
  for (let p = 0; p < shape[0]; p++)
    for (let q = 0; q < shape[1]; q++)
      for (let r = 0; r < shape[2]; r++)
        for (let s = 0; s < shape[3]; s++) data[index++] = x.data[p * a + q * b + r * c + s * d];
  return { shape, data };
}

// Where a window begins and how many places it has, along height and width.
function places(sides, { kernel_shape: window, strides: steps, auto_pad: padding }) {
  return sides.map((side, axis) => {
    const same = padding === "SAME_UPPER";
    const count = Math.ceil((same ? side : side - window[axis] + 1) / steps[axis]);
    const lost = same ? Math.max((count - 1) * steps[axis] + window[axis] - side, 0) : 0;
    return { count, before: Math.floor(lost / 2), step: steps[axis], window: window[axis], side };
  });
}

// Return where a window begins at a place, and which of its offsets are in the image.
function inside({ before, step, window, side }, place) {
  const first = place * step - before;
  return [first, Math.max(0, -first), Math.min(window, side - first)];
}

// Return a kernel with its filters last, so that the innermost loop runs over all of them.
function filtersLast(kernel) {
  if (kernel.filtersLast) return kernel.filtersLast;
  const filters = kernel.shape[0];
  const each = kernel.data.length / filters;
  const data = new Float32Array(kernel.data.length);
  for (let filter = 0; filter < filters; filter++)
    for (let at = 0; at < each; at++) data[at * filters + filter] = kernel.data[filter * each + at];
  return (kernel.filtersLast = data);
}

function convolve([x, kernel, bias], attributes) {
  const [n, channels, height, width] = x.shape;
  const filters = kernel.shape[0];
  const weights = filtersLast(kernel);
  const [rows, columns] = places([height, width], attributes);
  const shape = [n, filters, rows.count, columns.count];
  const data = new Float32Array(size(shape));
  const area = rows.count * columns.count;
  const sums = new Float32Array(filters);
  for (let image = 0; image < n; image++)
    for (let place = 0; place < area; place++) {
      const [top, firstRow, lastRow] = inside(rows, Math.floor(place / columns.count));
      const [left, firstColumn, lastColumn] = inside(columns, place % columns.count);
      if (bias) sums.set(bias.data);
      else sums.fill(0);
      for (let channel = 0; channel < channels; channel++)
        for (let ky = firstRow; ky < lastRow; ky++)
          for (let kx = firstColumn; kx < lastColumn; kx++) {
            const value = x.data[((image * channels + channel) * height + top + ky) * width + left + kx];
            if (value === 0) continue; // as half of them are after ReLU
            const first = ((channel * rows.window + ky) * columns.window + kx) * filters;
            for (let filter = 0; filter < filters; filter++) sums[filter] += value * weights[first + filter];
          }
      for (let filter = 0; filter < filters; filter++)
        data[(image * filters + filter) * area + place] = sums[filter];
    }
  return { shape, data };
}

const pool = (start, combine, finish) => ([x], attributes) => {
  const [n, channels, height, width] = x.shape;
  const [rows, columns] = places([height, width], attributes);
  const shape = [n, channels, rows.count, columns.count];
  const data = new Float32Array(size(shape));
  let index = 0;
  for (let map = 0; map < n * channels; map++)
    for (let row = 0; row < rows.count; row++)
      for (let column = 0; column < columns.count; column++) {
        const [top, firstRow, lastRow] = inside(rows, row);
        const [left, firstColumn, lastColumn] = inside(columns, column);
        let value = start;
        for (let ky = firstRow; ky < lastRow; ky++)
          for (let kx = firstColumn; kx < lastColumn; kx++)
            value = combine(value, x.data[(map * height + top + ky) * width + left + kx]);
        data[index++] = finish(value, (lastRow - firstRow) * (lastColumn - firstColumn));
      }
  return { shape, data };
};

// Multiply the last two axes; either side may be one matrix for all of the other's.
function multiply([x, y]) {
  const [rows, inner] = x.shape.slice(-2);
  const columns = y.shape.at(-1);
  const outer = x.shape.length > 2 ? x.shape.slice(0, -2) : y.shape.slice(0, -2);
  const shape = [...outer, rows, columns];
  const data = new Float32Array(size(shape));
  for (let matrix = 0; matrix < size(outer); matrix++) {
    const left = x.shape.length > 2 ? matrix * rows * inner : 0;
    const right = y.shape.length > 2 ? matrix * inner * columns : 0;
    for (let row = 0; row < rows; row++) {
      const out = data.subarray((matrix * rows + row) * columns, (matrix * rows + row + 1) * columns);
      for (let k = 0; k < inner; k++) {
        const factor = x.data[left + row * inner + k];
        if (factor === 0) continue;
        for (let column = 0; column < columns; column++)
          out[column] += factor * y.data[right + k * columns + column];
      }
    }
  }
  return { shape, data };
}

function normalize([x, scale, offset, mean, variance], { epsilon }) {
  const [, channels] = x.shape;
  const area = size(x.shape.slice(2));
  const factors = scale.data.map((value, channel) => value / Math.sqrt(variance.data[channel] + epsilon));
  const data = x.data.map((value, index) => {
    const channel = Math.floor(index / area) % channels;
    return (value - mean.data[channel]) * factors[channel] + offset.data[channel];
  });
  return { shape: x.shape, data };
}

// Reduce the first axis, or all after the second.
const reduce = (start, combine, finish) => ([x, axes]) => {
  const isFirst = axes.data[0] === 0;
  const shape = isFirst ? x.shape.slice(1) : x.shape.slice(0, 2);
  const data = new Float32Array(size(shape)).fill(start);
  const area = x.data.length / data.length;
  x.data.forEach((value, index) => {
    const target = isFirst ? index % data.length : Math.floor(index / area);
    data[target] = combine(data[target], value);
  });
  return { shape, data: data.map((value) => finish(value, area)) };
};

function concatenate(tensors, { axis }) {
  const at = axis < 0 ? axis + tensors[0].shape.length : axis;
  const shape = [...tensors[0].shape];
  shape[at] = tensors.reduce((sum, { shape: sides }) => sum + sides[at], 0);
  const data = new Float32Array(size(shape));
  const whole = size(shape.slice(at));
  let offset = 0;
  for (const { shape: sides, data: values } of tensors) {
    const part = size(sides.slice(at));
    for (let outer = 0; outer * part < values.length; outer++)
      data.set(values.subarray(outer * part, (outer + 1) * part), outer * whole + offset);
    offset += part;
  }
  return { shape, data };
}

function gather([x, indices]) {
  const [n, pixels, channels] = x.shape;
  const shape = [n, indices.data.length, channels];
  const data = new Float32Array(size(shape));
  let index = 0;
  for (let image = 0; image < n; image++)
    for (const pixel of indices.data)
      for (let channel = 0; channel < channels; channel++)
        data[index++] = x.data[(image * pixels + pixel) * channels + channel];
  return { shape, data };
}

function softmax([x], { axis }) {
  const at = axis < 0 ? axis + x.shape.length : axis;
  const [count, step] = [x.shape[at], size(x.shape.slice(at + 1))];
  const data = new Float32Array(x.data.length);
  for (let outer = 0; outer < x.data.length; outer += count * step)
    for (let first = outer; first < outer + step; first++) {
      let [greatest, sum] = [-Infinity, 0];
      for (let k = 0; k < count; k++) greatest = Math.max(greatest, x.data[first + k * step]);
      for (let k = 0; k < count; k++) sum += data[first + k * step] = Math.exp(x.data[first + k * step] - greatest);
      for (let k = 0; k < count; k++) data[first + k * step] /= sum;
    }
  return { shape: x.shape, data };
}

function reshape([x, sides]) {
  const shape = Array.from(sides.data);
  const whole = shape.reduce((product, side) => (side < 0 ? product : product * side), 1);
  return { shape: shape.map((side) => (side < 0 ? x.data.length / whole : side)), data: x.data };
}

// M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions" (1964), 7.1.26: to 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

const OPERATIONS = {
  Add: ([x, y]) => add(x, y),
  ArgMax: () => null, // The page looks for the most probable digit itself.
  AveragePool: pool(0, (sum, value) => sum + value, (sum, count) => sum / count),
  BatchNormalization: normalize,
  Cast: ([x]) => x,
  Concat: concatenate,
  Conv: convolve,
  Div: ([x, y]) => elementwise(x, y, (a, b) => a / b),
  Elu: unary((x) => (x > 0 ? x : Math.exp(x) - 1)),
  Flatten: ([x]) => ({ shape: [x.shape[0], size(x.shape.slice(1))], data: x.data }),
  Gather: gather,
  Gelu: unary((x) => 0.5 * x * (1 + erf(x / Math.SQRT2))),
  MatMul: multiply,
  MaxPool: pool(-Infinity, Math.max, (value) => value),
  Mul: ([x, y]) => elementwise(x, y, (a, b) => a * b),
  ReduceMax: reduce(-Infinity, Math.max, (value) => value),
  ReduceMean: reduce(0, (sum, value) => sum + value, (sum, count) => sum / count),
  Relu: unary((x) => Math.max(x, 0)),
  Reshape: reshape,
  Sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  Softmax: softmax,
  Sum: (tensors) => tensors.reduce(add),
  Tanh: unary(Math.tanh),
  Transpose: transpose,
};

// Return a network of networks.json, with its constants from the bytes of its file.
function prepare({ nodes, constants }, bytes) {
  const tensors = {};
  for (const [name, { shape, type, offset }] of Object.entries(constants)) {
    const kind = type === "float" ? Float32Array : Int32Array;
    tensors[name] = { shape, data: new kind(bytes, offset, size(shape)) };
  }
  return { nodes, tensors };
}

// Return the probabilities of one image: 784 numbers from 0 to 255, ink 255.
function classify({ nodes, tensors }, image) {
  const values = { ...tensors, images: { shape: [1, 28, 28], data: Float32Array.from(image) } };
  for (const { operation, inputs, output, attributes } of nodes)
    values[output] = OPERATIONS[operation](inputs.map((name) => values[name]), attributes);
  return Array.from(values.probabilities.data);
}

if (typeof module !== "undefined") module.exports = { OPERATIONS, classify, prepare };
