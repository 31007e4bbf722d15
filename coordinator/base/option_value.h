/* Text to value, by one row of the table. Inside base only. */
#ifndef BASE_OPTION_VALUE_H
#define BASE_OPTION_VALUE_H

#include "base/options.h"

/* False when the text is not a value of that row. With field == NULL it is only judged; a field is
 * written only with a value that is right. Texts are not copied. */
bool option_convert(const struct option_spec *spec, const char *text, void *field);

/* What is expected, as the end of a sentence: "a whole number from 1 to 9". */
void option_expected(const struct option_spec *spec, char *text, size_t text_bytes);

/* Does it begin with a character of UTF-8 that is no control character? The end is none. */
bool option_is_text(const char *text);

/* MUSTER_NAME, dashes as underscores. */
void option_variable(const char *name, char *text, size_t text_bytes);

#endif
