// What every C++ test is linked with: doctest, and main().
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "doctest.h"
