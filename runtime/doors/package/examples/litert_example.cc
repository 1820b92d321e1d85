// Runs an image through a .tflite whose backend is native: litert_example FILE.tflite IMAGE
// IMAGE is what its input tensor holds: floats of [1, 3, size, size], or pixels, uint8, of a file
// that takes them. Prints the logits, one a line.
#include <tensorflow/lite/c/c_api.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "bve_litert.h"

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  TfLiteModel* model = TfLiteModelCreateFromFile(argv[1]);
  if (!model) return 1;

  // The delegate, and as many threads as the phone has big cores.
  const char *keys[] = {"threads"}, *values[] = {"1"};
  TfLiteDelegate* delegate = tflite_plugin_create_delegate(keys, values, 1, nullptr);
  TfLiteInterpreterOptions* options = TfLiteInterpreterOptionsCreate();
  TfLiteInterpreterOptionsAddDelegate(options, delegate);
  TfLiteInterpreter* interpreter = TfLiteInterpreterCreate(model, options);
  if (!interpreter || TfLiteInterpreterAllocateTensors(interpreter) != kTfLiteOk) return 1;

  TfLiteTensor* input = TfLiteInterpreterGetInputTensor(interpreter, 0);
  if (TfLiteTensorCopyFromBuffer(input, image.data(), image.size()) != kTfLiteOk) return 2;
  if (TfLiteInterpreterInvoke(interpreter) != kTfLiteOk) return 1;
  const TfLiteTensor* output = TfLiteInterpreterGetOutputTensor(interpreter, 0);
  std::vector<float> logits(TfLiteTensorByteSize(output) / sizeof(float));
  TfLiteTensorCopyToBuffer(output, logits.data(), logits.size() * sizeof(float));
  for (float logit : logits) std::printf("%.9g\n", logit);

  // In this order: an interpreter uses its delegate until it is deleted.
  TfLiteInterpreterDelete(interpreter);
  TfLiteInterpreterOptionsDelete(options);
  tflite_plugin_destroy_delegate(delegate);
  TfLiteModelDelete(model);
  return 0;
}
