# Writes a program of $1 files: the sum of the numbers below $1.
count=$1
{
  echo '#include <stdio.h>'
  i=0; while [ $i -lt $count ]; do echo "int f$i(void);"; i=$((i + 1)); done
  echo 'int main(void) { long sum = 0;'
  i=0; while [ $i -lt $count ]; do echo "sum += f$i();"; i=$((i + 1)); done
  printf '%s\n' 'printf("%ld\n", sum); return 0; }'
} > main.c
i=0
while [ $i -lt $count ]; do
  printf '#include <stdlib.h>\n#include <string.h>\nint f%d(void) { char text[16]; strcpy(text, "%d"); return atoi(text); }\n' $i $i > f$i.c
  i=$((i + 1))
done
